import numpy as np

from hiwl.model.components import Components, directions


def test_components_are_of_unit_variance_also_on_galaxies_that_they_were_not_fitted_on() -> None:
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(40, 200)) * np.geomspace(10, 0.1, 40)[:, None]
    features = (rng.normal(size=(3000, 40)) @ axes + 5).astype(np.float32)
    fitted = Components.fit(features[:2000])
    there, others = fitted(features[:2000], len(fitted.axes)), fitted(features[2000:], len(fitted.axes))
    assert np.abs(there.std(axis=0) - 1).max() < 0.01
    assert np.abs(others.std(axis=0) - 1).max() < 0.2


def test_of_few_galaxies_no_component_is_noise() -> None:
    features = np.random.default_rng(0).normal(size=(300, 1280)).astype(np.float32)
    fitted = Components.fit(features[:20])
    assert len(fitted.axes) == 19
    assert np.abs(fitted(features[20:], 19)).max() < 10
    assert len(Components.fit(np.ones((9, 5), np.float32)).axes) == 0


def test_directions_are_of_unit_length_and_nothing_stays_nothing() -> None:
    found = directions(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 0.0]]
