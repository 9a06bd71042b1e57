"""Commands about evidence: checked against itself, and trained again."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def verify(
    where: Annotated[str, typer.Argument(help="Folder of evidence, or one folder in it.")] = "outputs/reference",
    readme: Annotated[
        str, typer.Option(help="Compare the table in this Markdown file, and the experiments' headers; empty: do not.")
    ] = "README.md",
    as_json: Annotated[bool, typer.Option("--json", help="Print folders and problems as JSON.")] = False,
) -> None:
    """Check committed evidence against itself and against what is written of it; needs neither data nor a GPU.

    \b
    Every file is the one that was kept, the metrics are those of the predictions, epochs and seconds those of the
    rows. Exit code 4 where something does not agree, with file and key.

    \b
    Examples:
      cifar-lab verify
      cifar-lab verify outputs/reference/d3_small_cnn --readme ''
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from cifar_lab.errors import CheckpointError, guarded

    def work() -> None:
        from cifar_lab.verify import verify as verify_evidence

        # The table is of all evidence: one folder has none.
        is_one = (Path(where) / "result.json").is_file()
        names, problems = verify_evidence(Path(where), Path(readme) if readme and not is_one else None)
        if as_json:
            print(json.dumps({"folders": names, "problems": [asdict(problem) for problem in problems]}, indent=1))
        else:
            for problem in problems:
                print(problem.line())
        if problems:
            raise CheckpointError(
                f"{where}: {len(problems)} {'thing does' if len(problems) == 1 else 'things do'} not agree",
                hint="`git diff` shows what was changed; `cifar-lab results --write README.md` makes the table again",
            )
        if not as_json:
            print(
                f"{where}: {len(names)} folders agree with themselves" + (f" and with {readme}" if readme and not is_one else "")
            )

    raise typer.Exit(guarded(work))


@app.command()
def rerun(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or of evidence.")],
    places: Annotated[
        list[str] | None, typer.Argument(help="Other places: device=, threads=, data.root=, data.download=, tracker.name=, ...")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder of the new run; default: one below outputs/reruns.")] = "",
    plugin: Annotated[list[str] | None, typer.Option(help="The file that its model came from (may be repeated).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print folder and verdict as JSON, and nothing else.")] = False,
) -> None:
    """Train a run again from its own folder, and say whether it came out the same.

    \b
    Ends in one line: bit for bit, within spread (with the numbers and n), or NOT reproduced (exit code 4). What
    differs around it (code, packages, device, data) is listed first.

    \b
    Examples:
      cifar-lab rerun outputs/runs/2026-11-21_small_cnn
      cifar-lab rerun outputs/reference/d3_small_cnn data.root=/data/cifar10 threads=4
    """
    import json
    import sys
    from contextlib import nullcontext, redirect_stdout
    from pathlib import Path

    from cifar_lab.errors import CheckpointError, guarded

    def work() -> None:
        from cifar_lab.cores import wait_politely_if_busy

        wait_politely_if_busy()
        from cifar_lab.plugins import add_all
        from cifar_lab.rerun import rerun as train_again

        add_all(plugin)
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            new, verdict = train_again(Path(run), places or [], Path(out) if out else None)
        if as_json:
            accuracy = new.metrics["test"]["accuracy"]
            print(
                json.dumps(
                    {
                        "folder": str(new.path),
                        "reproduced": verdict.reproduced,
                        "verdict": verdict.text,
                        "test_accuracy": accuracy,
                    }
                )
            )
        if not verdict.reproduced:
            raise CheckpointError(verdict.text, kept=f"the new run is in {new.path}")
        if not as_json:
            print(verdict.text)

    raise typer.Exit(guarded(work))
