"""Networks: backbones, how they start from pretrained weights, precision and layout."""
