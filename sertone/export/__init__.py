"""From what was trained to a bundle that runs without torch.

source.py       what any model has to offer to be exported
trained.py      a model of ours: its checkpoints as one module, with temperature and scales
utils/hub.py          an audio-classification checkpoint of Hugging Face
heads.py        its head, and the whole as one module
graphs.py       torch -> ONNX
precision.py    int8, bf16
convolutions.py int8 of convolutions, as products
parity.py       the bundle against torch, over lengths
agreement.py    int8 or bf16 against fp32, on a corpus
card.py         the bundle's README
bundles.py      the whole way
cached.py       the folder of any model; Hugging Face models exported on the fly
"""
