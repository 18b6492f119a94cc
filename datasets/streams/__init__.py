"""From sets of images to batches: samplers, augmentation, loaders."""
