"""One training step with PyTorch, on the GPU when there is one: run with the interpreter of this image."""

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
layer = torch.nn.Linear(4, 2).to(device)
inputs, labels = torch.randn(8, 4, device=device), torch.zeros(8, dtype=torch.long, device=device)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
before = torch.nn.functional.cross_entropy(layer(inputs), labels)
before.backward()
optimizer.step()
after = torch.nn.functional.cross_entropy(layer(inputs), labels)
assert after < before, (before, after)
print(f"torch {torch.__version__} on {device}: loss {before.item():.3f} -> {after.item():.3f}")
