-- One database for each service that keeps books.
CREATE DATABASE node_0;
CREATE DATABASE node_1;
CREATE DATABASE node_2;
CREATE DATABASE validator;
CREATE DATABASE client;
