"""Sort galaxies by shape from their pictures.

>>> import hiwl
>>> hiwl.load("best")(["galaxy.jpg"])
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hiwl.model.answer import Model

__version__ = "0.2.0"


def load(weights: "str | Path") -> "Model":
    """The classifier `weights`: a name in ``pretrained``, such as `best`, a folder like those there, or MLflow's URI of
    a registered model, such as ``models:/hiwl@champion``.

    Call it with paths, bytes or arrays of pictures: it gives a table, a row a picture.

    Raises:
        HiwlError: there is no such folder, or it is not complete.
    """
    from hiwl.core.registry import weights_folder
    from hiwl.model.answer import Model
    from hiwl.model.torchvision_mend import mend_torchvision

    mend_torchvision()  # whoever goes on with timm, as the cards show, can import it
    return Model.load(weights_folder(weights))
