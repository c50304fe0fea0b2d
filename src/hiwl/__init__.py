"""Sort galaxies by shape from their pictures."""

from hiwl import _torchvision_compat

_torchvision_compat.install()
