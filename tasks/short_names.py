"""Imported so that YAML can name the classes of these modules by their short names."""

# ruff: noqa: F401

import callbacks.cost
import callbacks.critical_batch_probe
import callbacks.gradient_noise_scale
import callbacks.linear_approximation_error
import callbacks.sharpness
import callbacks.weight_distance
import datamodules.cifar
import datamodules.cityscapes
import datamodules.fashion_mnist
import datamodules.imagenet
import datamodules.scenes
import datamodules.svhn
import datamodules.text
import datamodules.token_files
import tasks.image_classification
import tasks.language_modeling
import tasks.networks.cifar
import tasks.networks.cnn
import tasks.networks.drn
import tasks.networks.language
import tasks.networks.segmentation
import tasks.networks.zoo
import tasks.optim.lamb
import tasks.optim.lars
import tasks.optim.schedules
import tasks.regression
import tasks.segmentation
