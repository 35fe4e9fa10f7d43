"""The command ``fusedrnn``: train a task, ask what it learnt, show the configuration. Needs the extra ``train``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fusedrnn.extras import needed_for

try:
    with needed_for("the command", "train"):
        import safetensors  # noqa: F401
        import typer

        if importlib.util.find_spec("matplotlib") is None:  # imported where something is drawn: it takes long
            raise ModuleNotFoundError(name="matplotlib")
except ModuleNotFoundError as error:
    sys.exit(f"fusedrnn: {error}")

import fusedrnn
from fusedrnn.data.sources import DataError
from fusedrnn.tasks import TASKS, SampleOptions
from fusedrnn.tasks.run import Command, run_task
from fusedrnn.tasks.sample import sample_run
from fusedrnn.tasks.saved import SavedRun
from fusedrnn.tasks.task import RunError
from fusedrnn.train import TrainingError, TrainingInterrupted, TrainingTerminated
from fusedrnn.train.checkpoint import CheckpointError
from fusedrnn.train.display import say
from fusedrnn.train.distributed import DistributedError, World, find_world

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
NO_READER = 128 + 13  # SIGPIPE, which Windows has no name for

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fused recurrent networks on the CPU: train a task, ask what it learnt, show the configuration.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"fusedrnn {fusedrnn.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _tasks_help() -> str:
    lines = ["Train a network on a task, from its data to its figure and picture.", "\b\nTasks:"]
    for task in TASKS.values():
        presets = "; ".join(f"{name}: {preset.about}" for name, preset in task.presets.items())
        lines[-1] += f"\n  {task.name}: {task.about}\n    presets: {presets}"
        if task.data:
            lines[-1] += f"\n    --data: {task.data}"
        for option in task.options:
            lines[-1] += f"\n    {option.flag}: {option.help}"
    lines.append(
        "The folder gets metrics.jsonl, checkpoint.safetensors, loss.png, TASK.png and figures.json. Ctrl-C and "
        "SIGTERM finish the step and write a checkpoint; --resume DIR goes on from there to the very same result. "
        "Under mpirun processes share each batch."
    )
    return "\n\n".join(lines)


def _with_own_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every task's own options for its ``**own``; typer reads a function's signature."""
    options = {option.name: option for task in TASKS.values() for option in task.options}
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name, option in options.items():
        kind: Any = Annotated[option.kind | None, typer.Option(hidden=True)]  # the help has them under their tasks
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


@app.command(help=_tasks_help())
@_with_own_options
def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help=f"One of {', '.join(TASKS)}.", show_default=False)],
    preset: Annotated[
        str | None, typer.Option(help="How long and how well, see above.", show_default="default", metavar="NAME")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the preset's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates in all, instead of the preset's epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, split and batches.", show_default="0")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads; results are the same for any number.", show_default="all cores")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A path, or a word that the task defines.", metavar="PATH-OR-WORD")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results, empty or absent.", show_default="runs/TASK", metavar="DIR")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", metavar="DIR")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the final figures there.", metavar="FILE")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the final line.")] = False,
    **own: Any,
) -> None:
    try:
        world = find_world()
    except DistributedError as error:
        _fail(World(), str(error), 1)
    if task not in TASKS:
        _fail(world, f"no task {task!r}; there are {', '.join(TASKS)}", 2)
    importlib.import_module("matplotlib")  # nothing is trained that cannot be drawn
    if threads is not None:
        try:
            fusedrnn.set_num_threads(threads)
        except (ValueError, TypeError) as error:
            _fail(world, f"--threads: {error}", 2)
    given = {name: value for name, value in own.items() if value is not None}
    command = Command(preset, epochs, steps, seed, data, out, resume, json_file, progress=not quiet, own=given)
    folder: list[Path] = []
    try:
        _, line = run_task(TASKS[task], command, folder.append)
    except RunError as error:
        _fail(world, str(error), 2)
    except TrainingInterrupted as error:
        code = TERMINATED if isinstance(error, TrainingTerminated) else INTERRUPTED
        _fail(world, f"{error}\ngo on with: fusedrnn train {task} --resume {folder[0]}", code)
    except KeyboardInterrupt:
        hint = f"; go on with: fusedrnn train {task} --resume {folder[0]}" if folder else ""
        _fail(world, f"interrupted{hint}", INTERRUPTED)
    except BrokenPipeError:
        raise typer.Exit(NO_READER) from None
    except (TrainingError, CheckpointError, DataError, DistributedError, OSError, MemoryError) as error:
        _fail(world, str(error) or type(error).__name__, 1)
    if world.rank == 0:
        print(f"{line}; results in {folder[0]}")


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    prime: Annotated[str | None, typer.Option(help="What to go on from.", metavar="TEXT")] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1 the likely becomes likelier; 0 takes the likeliest.")
    ] = 1.0,
    bias: Annotated[float, typer.Option(help="Above 0 densities become narrower.")] = 0.0,
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    length: Annotated[int, typer.Option(help="Steps of each at most.")] = 500,
    style: Annotated[
        int | None, typer.Option(help="Handwriting: like this example of the run, from 1.", metavar="NUMBER")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write there rather than print.", metavar="FILE")] = None,
) -> None:
    """Draw from what a run has learnt so far, where its task is one that can be drawn from."""
    world = World()
    try:
        sample_run(TASKS, run, SampleOptions(prime, temperature, bias, count, length, style, seed, out))
    except RunError as error:
        _fail(world, str(error), 2)
    except BrokenPipeError:
        raise typer.Exit(NO_READER) from None
    except (CheckpointError, OSError, MemoryError) as error:
        _fail(world, str(error) or type(error).__name__, 1)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `fusedrnn train`.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to ask about, in quotes.")],
) -> None:
    """Ask a trained network about a text of yours."""
    try:
        name = SavedRun(run).task
        task = TASKS.get(name or "")
        if task is None or task.predict is None:
            able = ", ".join(task.name for task in TASKS.values() if task.predict is not None)
            _fail(World(), f"{run}: a run of {name or 'another program'}; there is something to ask with {able}", 2)
        else:
            task.predict(run, text, print)
    except BrokenPipeError:
        raise typer.Exit(NO_READER) from None
    except ValueError as error:
        _fail(World(), str(error), 2)
    except (CheckpointError, OSError, MemoryError) as error:
        _fail(World(), str(error) or type(error).__name__, 1)


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show version, instruction sets, threads and compiler."""
    config: dict[str, Any] = fusedrnn.show_config()
    if as_json:
        print(json.dumps(config))
        return
    for name, value in config.items():
        print(f"{name.replace('_', ' '):16} {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def selftest(
    cuda: Annotated[bool, typer.Option("--cuda", help="The kernels on an NVIDIA GPU.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="The smallest sizes alone.")] = False,
    out: Annotated[Path, typer.Option(help="The report; the same as text lies beside it.", metavar="FILE")] = Path(
        "fusedrnn-selftest.json"
    ),
) -> None:
    """Check the kernels on this machine's GPU and time them beside PyTorch's: a report to send us."""
    if not cuda:
        _fail(World(), "selftest: expected --cuda; the kernels on the CPU are checked by the tests alone", 2)
    from fusedrnn.cuda.selftest import main as run_selftest

    try:
        code = run_selftest(out, quick)
    except OSError as error:
        _fail(World(), str(error), 1)
    raise typer.Exit(code)


def _fail(world: World, message: str, code: int) -> Any:
    if world.rank == 0:  # what they all raise, one says
        say(f"fusedrnn: {message}")
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the command. A character that the output cannot show becomes a question mark; a reader that goes
    away, as ``head`` does, ends the command without a word and with the exit status of SIGPIPE."""
    out = sys.stdout
    if getattr(out, "errors", None) == "strict" and hasattr(out, "reconfigure"):
        out.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            if out is not None:
                out.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # nothing is left to be flushed at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        sys.exit(NO_READER)


if __name__ == "__main__":
    main()
