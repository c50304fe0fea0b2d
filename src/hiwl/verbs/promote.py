"""`hiwl promote`: make the challenger in MLflow's registry, or another version, the champion."""

from hiwl.core import store
from hiwl.core.errors import HiwlError
from hiwl.core.registry import CHALLENGER, CHAMPION, compare, is_whole, promote, version_of
from hiwl.core.section import read_section
from hiwl.stages.register import RegisterParams


def main(version: int | None) -> None:
    """Move the alias `champion`; what it replaces is named in the version's tags.

    Raises:
        HiwlError: there is no such version, or its files are not what they were.
    """
    from mlflow.exceptions import MlflowException

    name = RegisterParams.parse(read_section("register"), "register").name
    with store.registering():
        client = store.client()
        if version is None:
            chosen = version_of(client, name, CHALLENGER)
            if chosen is None:
                raise HiwlError(f"{name} has no challenger; `hiwl register` makes one, or name a version")
        else:
            try:
                chosen = client.get_model_version(name, str(version))
            except MlflowException:
                raise HiwlError(f"{name} has no version {version}; `mlflow ui` shows those that there are") from None
        if not is_whole(chosen):
            raise HiwlError(f"{name} version {chosen.version}: its files at {chosen.source} are gone or damaged")
        champion = version_of(client, name, CHAMPION)
        _, why = compare(chosen, champion)
        promote(client, chosen, champion)
    print(f"promote: {name} version {chosen.version} is the champion now: {why}")
