"""From what was trained to a bundle that runs without torch.

answers.py    a model with everything around it: normalisation, temperature, scales
graphs.py     torch -> ONNX
parity.py     the bundle against torch, over lengths
bundles.py    the whole way
"""
