"""What the training scripts, `evaluate.py` and `export.py` are made of. It needs PyTorch; `hair` does not."""
