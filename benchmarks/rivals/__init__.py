"""What Corolla is measured against, in processes of its own: plain transformers, accelerate, Petals."""
