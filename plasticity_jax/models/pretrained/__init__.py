"""Pretrained weights: checkpoints of others, read into our models."""
