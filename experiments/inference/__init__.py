"""Use of a trained model: load it, predict, evaluate a data set, export to ONNX, Kaggle submission, demo page."""
