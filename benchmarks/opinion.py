"""How far the bundled prior's answer follows the picture it is shown: ``python benchmarks/opinion.py [--prompts 16]``.

Two pictures stand before it in turn, under the same noise: its own sample of the prompt, x, and mid-gray, y. Told is
|x_hat(x) - x_hat(y)| / |x - y| for the clean pictures x_hat that it answers with (unguided): 1 where it believes what it sees,
0 where it knows what there is to see without looking. The result is ``results/opinion.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from jobs import choose_prompts
from machine import provenance

from dreamfusion.files import write_atomic
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.prior import Prior, broadcast, clean_from_noise
from dreamfusion.priors.question import Question
from dreamfusion.priors.sampler import sample
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from dreamfusion.view.view_settings import ViewSettings
from dreamfusion.view.view_words import view_words, with_view

RESULT = Path(__file__).parent / "results" / "opinion.json"
LEVELS = (0.2, 0.4, 0.6, 0.8)
TOLD = ("words and camera", "words", "nothing")
AZIMUTHS = (0.0, 90.0, 180.0, 270.0)
ELEVATION = 20.0


def shares(prior: Prior, prompt: str, generator: torch.Generator) -> dict[str, list[float]]:
    """The share of the difference between the two pictures that is left in the answers: what is told -> one for each t of
    ``LEVELS``."""
    words = prior.embed([with_view(prompt, view_words(a, ELEVATION, ViewSettings())) for a in AZIMUTHS])
    view = orbit_view(orbit_cameras(AZIMUTHS, ELEVATION), prior.resolution)
    seen, unseen = Question(words, view, "camera"), Question(words, view, "words")
    own = prior.encode(sample(prior, seen, generator, guidance_scale=0))
    noise = torch.randn(own.shape, generator=generator)

    def left(told: str, level: float) -> float:
        t = torch.full((len(own),), level)
        alpha, sigma = prior.alpha_sigma(t)
        question = seen if told == "words and camera" else unseen
        about = None if told == "nothing" else words
        answers = []
        for picture in (own, torch.zeros_like(own)):
            z = broadcast(alpha, own) * picture + broadcast(sigma, own) * noise
            (noise_in_z,) = prior.predict_noise(z, t, question, [about])
            answers.append(clean_from_noise(z, noise_in_z, alpha, sigma))
        return float((answers[0] - answers[1]).norm() / own.norm())

    return {told: [left(told, level) for level in LEVELS] for told in TOLD}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", default="16", help="a suite, a file, or so many prompts of bundled-153")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    prior, prompts = load_prior("bundled"), choose_prompts(args.prompts)
    assert isinstance(prior, BundledPrior)
    generator = torch.Generator().manual_seed(0)
    found = [shares(prior, prompt, generator) for prompt in prompts]
    table = {}
    for told in TOLD:
        table[told] = [round(x, 3) for x in torch.tensor([f[told] for f in found]).mean(0).tolist()]
        print(f"{told}: " + "  ".join(f"t = {t}: {v:.2f}" for t, v in zip(LEVELS, table[told], strict=True)))
    page = {
        "what": "opinion",
        "prior": prior.hash,
        "prompts": prompts,
        "levels": LEVELS,
        "shares": table,
    } | provenance()
    write_atomic(args.result, (json.dumps(page, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
