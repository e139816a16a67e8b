"""Use models without PyTorch: bundles, prediction, long recordings, live streams.

bundle.py            the folder in which a model is published, run by ONNX Runtime
answering.py         the interface of a model, and the format of its predictions
predictor.py         one prediction per recording, of any length
prefetch.py          decode the next files while the model runs
recording_source.py  the forms of a recording: path, bytes, open file, samples
texts.py             the text of a recording
tokenizer.py         tokenizers of Hugging Face
graph_files.py       weight files beside an ONNX graph
arithmetic_check.py  a known output, computed again on every machine
shipped.py           the model that comes with the package
timeline/            segments and speakers of long recordings, live streams
formats/             timelines as files: ELAN, Praat, captions, RTTM, CSV, HTML, PNG
batch/               many recordings into one resumable file

Requires numpy, soundfile, soxr and onnxruntime. All other packages are optional extras.
"""
