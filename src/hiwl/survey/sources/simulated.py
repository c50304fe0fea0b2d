"""The simulated survey: pictures drawn with GalSim and votes that follow from what was drawn.

It has the competition's format and nothing else of it. A galaxy is a set of physical parameters; the votes
and the picture both follow from them, so that a vote fraction always has something visible behind it.

The pictures take the way the real ones took: light on SDSS's pixels, three bands, noise, an asinh stretch
(Lupton et al. 2004), a JPEG of the field; then the cutout service's resampling to 424 pixels at .02 of the
galaxy's Petrosian R90 a pixel, and a second JPEG. Small galaxies are thus blurred and their noise is coarse.
"""

import io
import math
import multiprocessing
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import galsim
import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.special
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from hiwl.core.files import replacing, write_text
from hiwl.core.layout import ID, RAW_IMAGES, RAW_TABLE
from hiwl.core.settings import settings
from hiwl.survey.sources import Simulated
from hiwl.survey.votes import COLUMNS, TASKS, walk

Array = NDArray[np.float64]
Pixels = NDArray[np.floating[Any]]  # single precision: fine enough for 8 bits, and twice as fast

# How often each population is drawn. The clear ones stand as in the competition's clean set (8434, 8069, 578,
# 3903, 7806), with cigars lifted from 2 % to 6 % so that a small survey has some.
MIX = {"round": 0.185, "between": 0.145, "cigar": 0.03, "edge-on": 0.105, "spiral": 0.205, "unclear": 0.33}

SIDE = 424  # pixels of a picture
PIXEL = 0.396  # arcseconds of an SDSS pixel
FRAME = 0.02 * SIDE  # a picture's side in units of the galaxy's R90 (Willett et al. 2013, section 2)
BETA = 3.5  # of the Moffat profile that stands for the seeing
# For i, r, g, which become red, green, blue: their weights in SDSS's colour pictures; the noise of a pixel in
# nanomaggies (from the 5-sigma depths); and what the pictures leave of the sky, weighed.
SCALES, SKY_NOISE, SKY_LEVEL = np.array([[1.22, 1.42, 2.15], [0.052, 0.036, 0.023], [0.0, 0.0, -0.012]], np.float32)[
    :, :, None, None
]
STRETCH = (6.5, 6.24)  # asinh(first * light) / second: fits the real galaxies' mean profiles and their noise
SKY_LIGHT = 0.6  # nanomaggies a pixel: where a source's own photon noise equals the sky's
HASTE = 0.06  # share of the answers that are given at random
# Coarser than GalSim's own accuracy, finer than 8 bits show.
LOOSE = galsim.GSParams(folding_threshold=0.02, maxk_threshold=0.01, kvalue_accuracy=1e-4)


@dataclass(frozen=True)
class Galaxy:
    """What is there to see. Angles in degrees, sizes in arcseconds, strengths and fractions from 0 to 1."""

    disk: bool  # a disk with a bulge, or else a smooth ellipsoid
    axis_ratio: float  # of the ellipsoid, or the thickness of the disk (scale height over scale length)
    inclination: float  # of the disk: 0 face-on, 90 edge-on
    sersic: float  # index of the ellipsoid or the bulge
    bulge: float  # fraction of the light
    radius: float  # Petrosian R90
    brightness: float  # r magnitudes a square arcsecond, mean within the half-light radius
    colour: float  # g - r of the old stars
    youth: float  # how much bluer the disk and arms are, in g - r
    angle: float  # position angle
    arms: int
    arm_strength: float
    pitch: float
    flocculence: float  # how far knots and broken arms take the place of a clean pattern
    bar: float
    ring: float
    lane: float  # dust seen against an edge-on disk
    disturbance: float  # lopsidedness
    companion: float  # flux of a galaxy on top of this one, as a fraction
    seeing: float  # full width at half maximum

    @property
    def from_the_side(self) -> bool:
        """Whether the disk is too inclined for anything in its plane to be seen."""
        return self.disk and self.inclination > 80

    @property
    def apparent_ratio(self) -> float:
        """Axis ratio as seen: of the inclined disk or the ellipsoid, rounded by the seeing."""
        cosine = math.cos(math.radians(self.inclination))
        ratio = math.hypot(cosine, self.axis_ratio) if self.disk else self.axis_ratio
        blur = (self.seeing / 2.355) ** 2
        half_light = (self.radius / 2.6) ** 2
        return math.sqrt((min(ratio, 1.0) ** 2 * half_light + blur) / (half_light + blur))

    @property
    def visibility(self) -> float:
        """How much of the finer structure survives the seeing and the noise, 0 to 1."""
        return _logistic((self.radius / self.seeing - 3.2) / 0.35) * _logistic((21.9 - self.brightness) / 0.2)


class Drawn(NamedTuple):
    """One galaxy of the survey: its JPEG, and its vote fractions in the order of the table's columns."""

    jpeg: bytes
    votes: list[float]


def bring(source: Simulated) -> None:
    """Draw the survey into ``data/raw``."""
    write_survey(source, RAW_IMAGES, RAW_TABLE, settings().workers)


def write_survey(params: Simulated, images: Path, table: Path, workers: int) -> None:
    """Write the archive of pictures and the table of votes; the same bytes whatever `workers` is."""
    ids = 100_000 + np.sort(galaxy_generator(params, 0).choice(900_000, params.galaxies, replace=False))
    rows = [",".join([ID, *COLUMNS])]
    with replacing(images) as beside, zipfile.ZipFile(beside, "w") as archive:
        pictures = tqdm(_draw_all(params, workers), "drawing", params.galaxies, unit="galaxy")
        for galaxy_id, drawn in zip(ids, pictures, strict=True):
            always = (1980, 1, 1, 0, 0, 0)  # a fixed time: the same bytes again
            archive.writestr(zipfile.ZipInfo(f"images_training_rev1/{galaxy_id}.jpg", always), drawn.jpeg)
            rows.append(",".join([str(galaxy_id), *(f"{vote:.6f}" for vote in drawn.votes)]))
    write_text(table, "\n".join(rows) + "\n")


def galaxy_generator(params: Simulated, number: int) -> np.random.Generator:
    """The random numbers of galaxy `number`, counted from 1; those of number 0 make the galaxies' names."""
    return np.random.default_rng([params.seed, number])


def simulate(params: Simulated, number: int) -> Drawn:
    """Draw galaxy `number`, counted from 1, and have it voted on."""
    rng = galaxy_generator(params, number)
    galaxy = draw_galaxy(rng)
    votes = draw_votes(galaxy, params.volunteers, rng)
    return Drawn(draw_picture(galaxy, rng), votes)


def _draw_all(params: Simulated, workers: int) -> Iterator[Drawn]:
    numbers = range(1, params.galaxies + 1)
    if workers == 1:
        yield from map(partial(simulate, params), numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(simulate, params), numbers, chunksize=16)


# ---- what is there


def draw_galaxy(rng: np.random.Generator) -> Galaxy:
    """Draw a galaxy of one of the populations of `MIX`."""
    population = str(rng.choice(list(MIX), p=list(MIX.values())))
    doubtful = population == "unclear"
    disk = population in ("edge-on", "spiral") or (doubtful and rng.random() < 0.65)
    if population == "edge-on":
        inclination = rng.uniform(83, 90)
    else:
        inclination = math.degrees(math.acos(rng.uniform(0.15 if doubtful else 0.45, 1.0)))
    # The doubtful ellipsoids lie on the bounds between round, in between and cigar-shaped.
    doubts = ((0.765, 0.82), (0.33, 0.39))[rng.integers(2)]
    ratios = {"round": (0.87, 1.0), "between": (0.5, 0.73), "cigar": (0.19, 0.31), "unclear": doubts}
    axis_ratio = rng.uniform(*((0.08, 0.18) if disk else ratios[population]))
    # Flat things are disks even where they look smooth: their profiles are shallower.
    smooth = (1.0, 5.0) if axis_ratio > 0.6 else (1.0, 3.0) if axis_ratio > 0.4 else (0.5, 1.5)
    blue = rng.random() < (0.5 if population == "cigar" else 0.15)
    strength = rng.uniform(0.3, 0.62) if doubtful else rng.uniform(0.55, 1.0)
    radius = min(max(rng.lognormal(math.log(6.8), 0.4), 3.3), 16.0)
    far = math.log(6.8 / radius)  # small ones tend to be far: dimmed and reddened
    return Galaxy(
        disk=disk,
        axis_ratio=axis_ratio,
        inclination=inclination,
        # Halves only: GalSim tabulates each index once.
        sersic=round(2 * rng.uniform(*((1.0, 4.0) if disk else smooth))) / 2,
        bulge=rng.beta(1.5, 6.0) if population != "edge-on" else rng.uniform(0.08, 0.45),
        radius=radius,
        brightness=rng.normal(20.8 if disk else 19.85, 0.5) + 0.3 * far,
        colour=(rng.normal(0.35, 0.12) if blue and not disk else rng.normal(0.84, 0.06)) + 0.08 * far,
        youth=rng.uniform(0.15, 0.65),
        angle=rng.uniform(0, 180),
        arms=int(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.62, 0.17, 0.1, 0.06])),
        arm_strength=strength if disk and population != "edge-on" else 0.0,
        pitch=rng.uniform(9, 32),
        flocculence=rng.beta(2.0, 2.0),
        bar=rng.uniform(0.4, 1.0) if disk and rng.random() < (0.6 if doubtful else 0.35) else 0.0,
        ring=rng.uniform(0.4, 1.0) if disk and rng.random() < 0.06 else 0.0,
        lane=rng.uniform(0.2, 1.0) if population == "edge-on" and rng.random() < 0.6 else 0.0,
        disturbance=rng.beta(1.0, 2.0) if disk else 0.0,
        companion=rng.uniform(0.1, 0.8) if rng.random() < (0.2 if doubtful else 0.03) else 0.0,
        seeing=min(max(rng.normal(1.3, 0.12), 1.0), 1.8),
    )


# ---- what people say


def draw_votes(galaxy: Galaxy, volunteers: int, rng: np.random.Generator) -> list[float]:
    """Send `volunteers` people down the decision tree; the fractions of all of them, in the table's order."""
    # Who sees nothing guesses; and some always do.
    guessed = HASTE + (1 - HASTE) * 0.5 * (1 - galaxy.visibility)
    chances = {
        number: (guessed / TASKS[number].answers + (1 - guessed) * attentive)[None]
        for number, attentive in answer_chances(galaxy).items()
    }
    fractions = walk(chances, volunteers, rng)
    return [float(fractions[column][0]) for column in COLUMNS]


def answer_chances(galaxy: Galaxy) -> dict[int, Array]:
    """For each task of the tree, how likely an attentive volunteer is to give each answer."""
    seen = galaxy.visibility
    merger = min(1.0, 2 * galaxy.companion)
    face = 0.0 if galaxy.from_the_side else seen
    arms, bar, ring = face * galaxy.arm_strength, face * galaxy.bar, face * galaxy.ring
    if galaxy.disk:
        edge_on = _logistic((galaxy.inclination - 79) / 1.2)
        # A thin disk alone may pass for a cigar; a bulge or a lane of dust tells it apart.
        edge_signs = seen * edge_on * (0.35 + 0.7 * min(1.0, galaxy.lane + 3 * galaxy.bulge))
    else:
        edge_on = _logistic((0.3 - galaxy.axis_ratio) / 0.04)
        edge_signs = 0.15 * edge_on
    signs = max(arms, edge_signs, 0.8 * bar, 0.8 * ring, 0.45 * merger)
    features = 0.08 + 0.88 * _logistic((signs - 0.45) / 0.08)
    star = 0.02
    irregular = face * galaxy.disturbance**2 * galaxy.flocculence
    odd = 0.08 + 0.85 * max(ring, merger, irregular, 0.3 * galaxy.lane)
    count = np.exp(-((np.arange(1, 6) - galaxy.arms) ** 2))
    return {
        1: np.array([(1 - star) * (1 - features), (1 - star) * features, star]),
        2: np.array([edge_on, 1 - edge_on]),
        3: _yes_no(_logistic((bar - 0.4) / 0.1)),
        4: _yes_no(_logistic((arms - 0.42) / 0.06)),
        5: _ordered(galaxy.bulge, (0.03, 0.2, 0.55), 0.04),
        6: _yes_no(odd),
        7: _ordered(-galaxy.apparent_ratio, (-0.81, -0.4), 0.035),
        8: _shares([ring, 0.05, 0.3 * galaxy.disturbance, irregular, 0.2, merger, 0.5 * galaxy.lane]),
        9: _shares([0.85 * galaxy.bulge, 0.15 * galaxy.bulge, 0.04]),
        10: _ordered(galaxy.pitch, (15.0, 24.0), 2.0),
        11: _shares([*(count / count.sum()), 2 * galaxy.flocculence**2]),
    }


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _yes_no(yes: float) -> Array:
    return np.array([yes, 1 - yes])


def _shares(weights: Iterable[float]) -> Array:
    values = np.fromiter(weights, float)
    shares: Array = values / values.sum()
    return shares


def _ordered(value: float, bounds: tuple[float, ...], width: float) -> Array:
    """Chances of answers that stand in order along `value`, with soft bounds between them."""
    above = np.array([1.0, *(_logistic((value - bound) / width) for bound in bounds), 0.0])
    chances: Array = above[:-1] - above[1:]
    return chances


# ---- what it looks like


def draw_picture(galaxy: Galaxy, rng: np.random.Generator) -> bytes:
    """The galaxy's picture as the competition has it: a JPEG of 424 x 424 pixels."""
    field = Image.open(_jpeg(Image.fromarray(stretch(draw_light(galaxy, rng))), 90, progressive=False))
    return _jpeg(field.resize((SIDE, SIDE), Image.Resampling.BICUBIC), 75, progressive=True).getvalue()


def draw_light(galaxy: Galaxy, rng: np.random.Generator) -> Pixels:
    """The galaxy's field with its noise, (3, side, side): nanomaggies of each of SDSS's pixels in i, r and g."""
    side = 2 * round(FRAME * galaxy.radius / PIXEL / 2)
    psf = galsim.Moffat(beta=BETA, fwhm=galaxy.seeing, gsparams=LOOSE)
    light = _disk_light(galaxy, psf, side, rng) if galaxy.disk else _ellipsoid_light(galaxy, psf, side)
    _add_field(light, galaxy, rng)
    # The bands are not perfectly aligned: small galaxies show it as a rainbow.
    for band in (0, 2):
        light[band] = scipy.ndimage.shift(light[band], rng.normal(0, 0.2, 2), order=1, mode="nearest")
    light += rng.normal(0, 0.01, (3, 1, 1)) / SCALES  # how well the sky was subtracted
    noise = SKY_NOISE * np.sqrt(1 + np.maximum(light, 0) / SKY_LIGHT)
    drawn: Pixels = light + noise * rng.standard_normal(light.shape, np.float32)
    return drawn


def stretch(light: Pixels) -> NDArray[np.uint8]:
    """Lupton et al.'s colour-preserving asinh stretch of the bands i, r, g to red, green, blue."""
    scaled = np.maximum(light * SCALES + SKY_LEVEL, 0)
    mean = scaled.mean(axis=0) + 1e-6
    colours = scaled * (np.arcsinh(STRETCH[0] * mean) / STRETCH[1] / mean)
    colours /= np.maximum(colours.max(axis=0), 1)
    picture: NDArray[np.uint8] = np.moveaxis(255 * colours, 0, -1).round().astype(np.uint8)
    return picture


def _jpeg(picture: Image.Image, quality: int, progressive: bool) -> io.BytesIO:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling="4:2:0", progressive=progressive, dpi=(96, 96))
    return stream


def _bands(colour: float) -> Pixels:
    """Fluxes in i, r, g relative to r of stars of this g - r; r - i is half of it, more in the reddest."""
    fluxes = [10 ** (0.2 * colour + 0.8 * max(colour - 1.1, 0)), 1.0, 10 ** (-0.4 * colour)]
    return np.array(fluxes, np.float32)[:, None, None]


def _flux(galaxy: Galaxy, half_light: float) -> float:
    """Nanomaggies in r."""
    thin = math.sqrt(galaxy.apparent_ratio)  # what is seen from the side is brighter, on less sky
    return 2 * math.pi * half_light**2 * thin * 10 ** (0.4 * (22.5 - galaxy.brightness))


def _stamp(profile: galsim.GSObject, psf: galsim.GSObject, side: int) -> Pixels:
    image = galsim.Convolve(profile, psf, gsparams=LOOSE).drawImage(nx=side, ny=side, scale=PIXEL)
    return np.asarray(image.array, np.float32)


def _ellipsoid_light(galaxy: Galaxy, psf: galsim.GSObject, side: int) -> Pixels:
    half_light = galaxy.radius / (1.7 + 0.2 * galaxy.sersic)  # R90 / R50 of a steep profile is larger
    half_light *= galaxy.axis_ratio**0.2  # the aperture is a circle, which an elongated body overfills
    body = galsim.Sersic(galaxy.sersic, half_light_radius=half_light, flux=_flux(galaxy, half_light))
    body = body.shear(q=galaxy.axis_ratio, beta=galaxy.angle * galsim.degrees)
    return _stamp(body, psf, side) * _bands(galaxy.colour)


def _disk_light(galaxy: Galaxy, psf: galsim.GSObject, side: int, rng: np.random.Generator) -> Pixels:
    scale_length = galaxy.radius / (2.2 if galaxy.from_the_side else 2.8)
    flux = _flux(galaxy, 1.68 * scale_length)
    cosine = math.cos(math.radians(galaxy.inclination))
    angle = galaxy.angle * galsim.degrees
    bulge = galsim.Sersic(galaxy.sersic, half_light_radius=(0.1 + 0.8 * galaxy.bulge) * scale_length)
    bulge = bulge.shear(q=0.5 + 0.5 * cosine, beta=angle) * (galaxy.bulge * flux)
    old, young = _bands(galaxy.colour), _bands(galaxy.colour - galaxy.youth)
    light = _stamp(bulge, psf, side) * old
    if galaxy.from_the_side:
        disk = galsim.InclinedSersic(
            0.7,  # flatter than an exponential disk, which ends in a point
            galaxy.inclination * galsim.degrees,
            half_light_radius=1.68 * scale_length,
            scale_h_over_r=galaxy.axis_ratio,
        ).rotate(angle)
        light = light + _stamp(disk * ((1 - galaxy.bulge) * flux), psf, side) * (old * 0.5 + young * 0.5)
        return light * _dust(galaxy, scale_length, side)
    smooth, arms = _spiral(galaxy, scale_length, side, rng)
    # Centred on a pixel, so that the convolution moves nothing; an even image's own centre lies between four.
    kernel = psf.drawImage(nx=side, ny=side, scale=PIXEL, method="no_pixel", offset=(0.5, 0.5)).array
    kernel = scipy.fft.rfft2(np.roll(kernel, (side // 2, side // 2), (0, 1)))
    share = (1 - galaxy.bulge) * flux / (smooth.sum() + arms.sum())
    for part, colour in ((smooth, old * 0.5 + young * 0.5), (arms, young)):
        light = light + share * scipy.fft.irfft2(scipy.fft.rfft2(part) * kernel, part.shape) * colour
    return light


def _plane(galaxy: Galaxy, side: int, cosine: float) -> tuple[Pixels, Pixels]:
    """The pixels' arcseconds along the major axis and, stretched by 1 / `cosine`, along the minor axis."""
    steps = (np.arange(side, dtype=np.float32) - (side - 1) / 2) * PIXEL
    x, y = steps[None, :], steps[:, None]
    sin, cos = math.sin(math.radians(galaxy.angle)), math.cos(math.radians(galaxy.angle))
    return x * cos + y * sin, (y * cos - x * sin) / cosine


def _dust(galaxy: Galaxy, scale_length: float, side: int) -> Pixels:
    """What a lane of dust along the disk lets through, in each band."""
    along, across = _plane(galaxy, side, 1.0)
    width = math.hypot(0.5 * galaxy.axis_ratio * scale_length, galaxy.seeing / 3)
    across = across - 1.5 * scale_length * math.cos(math.radians(galaxy.inclination)) * galaxy.axis_ratio
    depth = np.exp(-((across / width) ** 2) / 2 - (along / (2 * scale_length)) ** 2)
    return np.exp(-galaxy.lane * depth * np.array([1.0, 1.3, 1.8], np.float32)[:, None, None])


def _spiral(galaxy: Galaxy, scale: float, side: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """An inclined disk before the seeing: its smooth part with the bar, and its arms with knots and ring."""
    x, y = _plane(galaxy, side, math.hypot(math.cos(math.radians(galaxy.inclination)), galaxy.axis_ratio))
    x = x + 0.3 * scale * galaxy.disturbance * rng.uniform(-1, 1)  # off the bulge's centre
    radius, azimuth = np.hypot(x, y) / scale, np.arctan2(y, x)
    disk = np.exp(-radius)

    # Logarithmic spirals; finer and looser waves among them break the arms up.
    winding = np.log(radius + 0.05) / math.tan(math.radians(galaxy.pitch)) * int(rng.choice([-1, 1]))
    turn = rng.uniform(0, 2 * math.pi)
    ripples = np.zeros_like(radius)
    for number in range(3, 9):
        wave = number * (azimuth - rng.uniform(0.6, 1.2) * winding + rng.uniform(0, 2 * math.pi))
        ripples += rng.uniform(0.3, 1.0) * np.cos(wave)
    crest = np.cos(galaxy.arms * (azimuth - winding - turn) + 0.5 * galaxy.flocculence * ripples)
    pattern = np.exp(3.0 * (crest - 1)) * np.clip(1 + 0.5 * galaxy.flocculence * ripples, 0.05, None)
    lopsided = 1 + 0.6 * galaxy.disturbance * np.cos(azimuth - rng.uniform(0, 2 * math.pi))
    start = 1.2 if galaxy.bar else 0.5  # arms start where the bar ends
    reach = scipy.special.expit(6 * (radius - start)) * scipy.special.expit(3 * (3.8 - radius))
    arms = 3.5 * galaxy.arm_strength**2 * np.exp(-radius / 1.3) * reach * pattern * lopsided

    knots = int(40 * galaxy.flocculence * galaxy.arm_strength)
    places = rng.choice(arms.size, knots, p=(arms / arms.sum()).ravel())
    np.add.at(arms.ravel(), places, 0.004 * arms.sum() * rng.exponential(1.0, knots))
    arms += galaxy.ring * np.exp(-(((radius - 2) / 0.2) ** 2)) * 0.4

    along = azimuth - rng.uniform(0, math.pi)
    inside = 1 - radius**2 * ((np.cos(along) / 1.2) ** 2 + (np.sin(along) / 0.35) ** 2)
    bar = 1.2 * galaxy.bar**2 * np.clip(inside, 0, None)
    return disk * (1 - 0.4 * galaxy.arm_strength) + bar, arms


def _add_field(light: Pixels, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """Add stars and galaxies that happen to lie in the picture, and the companion, to `light`."""
    side = light.shape[1]
    area = (side * PIXEL / 60) ** 2  # square arcminutes
    others = [(rng.uniform(0, side, 2), 0.35 * (1 + rng.pareto(0.8))) for _ in range(rng.poisson(14 * area))]
    if galaxy.companion:
        turn, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1.0) * galaxy.radius / PIXEL
        place = side / 2 + distance * np.array([math.cos(turn), math.sin(turn)])
        others.append((place, galaxy.companion * _flux(galaxy, galaxy.radius / 2.6)))
    for (x, y), any_flux in others:
        flux = min(any_flux, 1000.0)
        star = rng.random() < 0.45
        size = galaxy.seeing * (1.0 if star else 1.3 + 0.3 * min(flux, 200.0) ** 0.33)
        shape = galsim.Shear(q=1.0 if star else rng.uniform(0.35, 1), beta=rng.uniform(0, 180) * galsim.degrees)
        profile = galsim.Moffat(beta=BETA, fwhm=size, flux=flux).shear(shape)
        reach = int(size / PIXEL * (3 + flux**0.4))  # beyond it the profile is lost in the noise
        left, right = max(int(x) - reach, 0), min(int(x) + reach, side)
        low, high = max(int(y) - reach, 0), min(int(y) + reach, side)
        stamp = galsim.ImageF(galsim.BoundsI(left, right - 1, low, high - 1), scale=PIXEL)
        profile.drawImage(stamp, center=galsim.PositionD(x, y), method="no_pixel")
        colour = rng.uniform(0.2, 1.5) if star else rng.normal(0.75, 0.25)
        light[:, low:high, left:right] += stamp.array * _bands(colour)
