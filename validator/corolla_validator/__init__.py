"""The validator: measures what honest noise looks like, and judges nodes by it."""
