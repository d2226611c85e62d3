"""How near a masked autoencoder comes to the exact fill-in of Gaussian random fields, where that is known.

    OMP_NUM_THREADS=1 python benchmarks/masked_wiener.py                         # with the smooth start, 3 seeds: 5 to 6 minutes
    OMP_NUM_THREADS=1 python benchmarks/masked_wiener.py --alone --steps 600        # the network alone

Periodic fields of 32 px with power k^-3 and variance 1, 75 % of the patches of 4 px hidden. The least mean squared error of hidden
pixels is that of the conditional mean S_hv S_vv^-1 x_v (Wiener); all others are given as multiples of it, on 256 fields and masks that
were not trained on. `principal axes` is the linear fill-in with the leading axes of the true covariance. The bar is 1.3.
"""

import argparse
import time

import torch

from simulacra.descent import Descent
from simulacra.families.masking import Filling, Linear, MaskedAutoencoder, Smooth, conditional_mean, hidden_error, hide_patches, over_pixels
from simulacra.nets.attention import Transformer, grid_positions

SIDE, PATCH, SHARE, SLOPE = 32, 4, 0.75, 3.0
COUNT = SIDE // PATCH


def spectrum():
    """Power of each mode, mean 1, none at k = 0."""
    k = torch.fft.fftfreq(SIDE, dtype=torch.float64) * SIDE
    k = torch.hypot(k[:, None], k)
    power = torch.where(k > 0, k.clamp(min=1) ** -SLOPE, 0.0)
    return power / power.mean()


def covariance(power):
    """Of the pixels of a field, (pixels, pixels)."""
    along = torch.fft.ifft2(power).real
    row, column = torch.arange(SIDE**2) // SIDE, torch.arange(SIDE**2) % SIDE
    return along[(row[:, None] - row) % SIDE, (column[:, None] - column) % SIDE] + 1e-9 * torch.eye(SIDE**2)


def fields(power, n, generator):
    white = torch.randn(n, SIDE, SIDE, generator=generator)
    return torch.fft.ifft2(torch.fft.fft2(white) * power.float().sqrt()).real[:, None]


def masks(n, generator):
    return over_pixels(hide_patches(torch.rand(n, COUNT**2, generator=generator), SHARE), PATCH)


def network(width, depth, start, unit):
    at = grid_positions(COUNT, COUNT, width)
    encoder, decoder = Transformer(width, depth, 4), Transformer(width, depth, 4)
    centre = torch.zeros(1, SIDE, SIDE)
    return MaskedAutoencoder(encoder, decoder, (at, at), patch=PATCH, centre=centre, contrast=torch.tensor(1.0), start=start, unit=unit)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--alone", action="store_true", help="without the smooth start")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    power, generator = spectrum(), torch.Generator().manual_seed(2_000)
    exact = covariance(power)
    images, hidden = fields(power, 256, generator), masks(256, generator)
    best = hidden_error(conditional_mean(exact, images, hidden), images, hidden)

    def ratio(filled):
        found = hidden_error(filled, images, hidden)
        scatter = float((found - best).std()) / len(found) ** 0.5 / float(best.mean())
        return f"{float(found.mean() / best.mean()):.3f} +- {scatter:.3f}"

    smooth = Smooth(torch.zeros(1, SIDE, SIDE), k2=0.02, rounds=10)
    print(f"variance of hidden pixels {float(images.square().mean()):.3f}, Wiener's error {float(best.mean()):.4f}")
    print("mean              ", ratio(torch.zeros_like(images)))
    variances, axes = torch.linalg.eigh(exact)
    for d in (16, 64):
        loadings = (axes[:, -d:] * variances[-d:].sqrt()).float().view(1, SIDE, SIDE, d)
        linear = Linear(torch.zeros(1, SIDE, SIDE), loadings, (variances[:-d].sum() / SIDE**2).float())
        print(f"{d} principal axes ", ratio(linear(images, hidden)))
    print("smooth fill-in    ", ratio(smooth(images, hidden)), flush=True)
    for seed in range(asked.seeds):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        start = None if asked.alone else smooth
        net = network(asked.width, asked.depth, start, None if asked.alone else best.mean().sqrt())
        filling = Filling(net, Descent(net, lr=asked.lr, betas=(0.9, 0.95), clip=1.0, ema=0.99, warmup=50, horizon=asked.steps))
        began = time.process_time()
        for _ in range(asked.steps):
            filling.step((fields(power, asked.batch, generator), masks(asked.batch, generator)))
        took = time.process_time() - began
        print(f"network, seed {seed}   ", ratio(filling.fill(images, hidden)), f" {took:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
