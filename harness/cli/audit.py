"""The command that audits a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import SUSPICIOUS
from harness.console import err, out


def audit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=".safetensors, .pt or .pth of tensors, a TorchScript, .onnx, a folder of transformers, "
            "module:function, or RUN/CELL of a run.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Clean rows: a folder with one sub-folder per class, a CSV of texts, or a task; for a language model "
            "a file of texts, one a line, or a folder of .txt files.",
            show_default="the task of RUN/CELL",
        ),
    ] = "",
    architecture: Annotated[
        str, typer.Option("--architecture", help="Of tensors: resnet18, ... of torchvision, or tinydrop-cnn.")
    ] = "",
    prepare: Annotated[
        str,
        typer.Option(
            "--prepare",
            help="How pictures are scaled: imagenet, cifar10, half, unit (0 to 1), raw (0 to 255), or MEAN/STD.",
            show_default="imagenet; half for grey ones, raw for victims of this suite",
        ),
    ] = "",
    size: Annotated[int | None, typer.Option("--size", min=1, help="Resize pictures to SIZE x SIZE pixels.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="One channel instead of three.")] = False,
    classes: Annotated[
        str,
        typer.Option(
            "--classes",
            help="Names of the classes in the order of the model's answers: cat,dog,...",
            show_default="as the folders sort, 2 before 10",
        ),
    ] = "",
    triggers: Annotated[
        str,
        typer.Option(
            "--triggers", help="A file of phrases to try on a language model, one a line, besides those of the suite."
        ),
    ] = "",
    null_models: Annotated[
        int,
        typer.Option(
            "--null-models", min=0, help="Clean models to train and compare with; 0 compares the model's own classes."
        ),
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows, shorter searches: a minute or two.")] = False,
    level: Annotated[
        float, typer.Option("--level", min=0.0001, max=0.5, help="p value at which an alarm is given.")
    ] = 0.05,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all draws.")] = 0,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for audit.json and audit.html.")] = Path("audit"),
) -> None:
    """Is this trained model backdoored? Tests it with known triggers and detectors, on clean rows of yours.

    It stamps the triggers of the suite on your pictures, sounds or texts and looks whether they turn into one class, as
    no random change of the same size makes them; and it lets neural_cleanse and mm_bd search triggers of their own. How
    unusual that is, clean models say (59 for all three tests), or else, with a weaker guarantee, the model's other
    classes. No file is unpickled; module:function runs your code. A wrong --prepare or another order of --classes shows
    as an accuracy at chance, and is refused. Of a language model it is asked what changes in what it writes when a
    phrase stands behind the prompt, as no random phrase of clean words changes it.

    Example:  tinydrop audit model.safetensors --architecture resnet18 --data pictures --quick
    Example:  tinydrop audit runs/quickstart/digits/badnets/5/none/0
    Example:  tinydrop audit my_models:load --data pictures --prepare cifar10 --null-models 59
    Example:  tinydrop audit my_language_model --data texts.txt --triggers suspects.txt

    Exit codes: 0 nothing found, 3 suspicious, 2 unusable input.
    """
    from harness.audit.reports import run_audit
    from harness.audit.steps import Request
    from harness.store.folder import write_atomically

    request = Request(
        model, data, architecture, prepare, size, grey, classes, triggers, null_models, quick, level, seed
    )
    report = run_audit(request, _bar, lambda text: err.print(text, highlight=False, soft_wrap=True))
    write_atomically(to / "audit.json", report.json)
    write_atomically(to / "audit.html", report.page)
    for table in report.tables:
        out.print(table)
    for line in (*report.lines, f"page: {to / 'audit.html'}"):
        out.print(line, highlight=False, soft_wrap=True)
    if report.suspicious:
        raise typer.Exit(SUSPICIOUS)


@contextmanager
def _bar(title: str, steps: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; a line elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if not err.is_terminal:
        err.print(title, highlight=False)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=steps)
        yield lambda: progress.advance(task)
