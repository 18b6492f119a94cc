"""Unsupervised domain adaptation of image classifiers, with batch norm or WeightAlign."""

__version__ = "0.1.0"
