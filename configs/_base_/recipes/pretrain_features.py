# Pre-training on ImageNet, or any folder of images, with targets that are no pixels:
# nothing is drawn.
_base_ = [
    "../datasets/imagenet_pretrain.py",
    "../schedules/pretrain.py",
    "../default_runtime.py",
]
