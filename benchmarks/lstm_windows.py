"""How many windows a second an LSTM learns from: the article's loop, one window at a time, against batches.

    python benchmarks/lstm_windows.py            # one thread; about a minute

The baseline is the loop of *Predicting Tomorrow's Temperature*: LSTM 1-100-1, windows of 7 days, batch 1, Adam, the loss read after every
window to be summed. Beside it the same network in batches, through our learner, and one network of the `laptop` ensemble, which
reads 5 days of ten numbers and answers with 23 quantiles of 14 days. CPU seconds; random numbers for data, for only speed is measured.
"""

import time

import torch

from simulacra.nets.recurrent import LastState
from simulacra.sciences.weather import article, lstm
from simulacra.series.windows import Outlook

SECONDS = 6.0  # of CPU time per line


def rows_of(n, past, horizon, columns):
    one = torch.ones(n, dtype=torch.int64)
    values = torch.randn(n, past, columns)
    values[..., 1], values[..., -1] = -4.0, 4.0  # the article's scaling reads extremes there
    return Outlook(0 * one, torch.arange(n), one, values, torch.randn(n, 1, horizon))


def rate(move, windows):
    """Windows per CPU second of a call that learns from `windows` of them."""
    for _ in range(3):
        move()
    count, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        move()
        count += windows
    return count / (time.process_time() - began)


def article_loop():
    """The article's training loop, on tensors that are ready."""
    network = LastState(1, article.HIDDEN, 1)
    optimiser, loss_of, total = torch.optim.Adam(network.parameters(), lr=5e-4), torch.nn.MSELoss(), 0.0
    x, y = torch.randn(500, 1, 7, 1), torch.randn(500, 1, 1)
    at = 0

    def move():
        nonlocal at, total
        optimiser.zero_grad()
        loss = loss_of(network(x[at % 500]), y[at % 500])
        loss.backward()
        optimiser.step()
        total += loss.item()
        at += 1

    return rate(move, 1)


def article_in_batches(batch):
    recipe = lstm.study.recipes["paper"]
    learner = article.ArticleLSTM(recipe, LastState(1, article.HIDDEN, 1))
    rows = rows_of(batch, 7, 1, 3)
    return rate(lambda: learner.step(rows), batch)


def laptop_in_batches(batch):
    recipe = lstm.study.recipes["laptop"].model_copy(update={"ensemble": 1})
    split = lstm.load(recipe.model_copy(update={"past": 366}))
    learner = lstm.build(recipe, split.train)
    rows = split.train[:batch]
    return rate(lambda: learner.step(rows), batch)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = article_loop()
    print(f"{'network':28} {'batch':>6} {'windows/s':>11} {'ratio':>7}")
    print(f"{'article, its loop':28} {1:6d} {base:11.0f} {1:7.1f}")
    for batch in (32, 256, 1024):
        found = article_in_batches(batch)
        print(f"{'article, in batches':28} {batch:6d} {found:11.0f} {found / base:7.1f}")
    for batch in (512, 2048):
        found = laptop_in_batches(batch)
        print(f"{'laptop, one of six':28} {batch:6d} {found:11.0f} {found / base:7.1f}")


if __name__ == "__main__":
    main()
