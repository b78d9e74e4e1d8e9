# DeepMIM on CIFAR-10 (32x32, patch 4), a ViT of 6 blocks and width 128, 10 epochs
# of every second training image.
# No paper's experiment: a small run that shows learning on a CPU within minutes. The
# k-NN accuracy on the 10,000 test images is measured before training (random
# initialisation) and after the last epoch.
# Data: data/cifar10/{train,test}/<class>/*.jpg (or .png), one folder per class.
# Measured, seeds 0 to 2: 29.1, 30.3, 29.9 % before, 40.7, 39.9, 39.6 % after (25 to 46
# minutes each on one busy core of an AMD EPYC; classes voted by 10,000 images).
# Global batch size: 128; smaller batches are accumulated to it.
# Command: python tools/train.py configs/cifar10/deepmim_vit-d6_10e.py
_base_ = "../_base_/recipes/cifar10.py"

model = dict(type="DeepMIM", backbone=dict(taps=(2, 3, 4)))
