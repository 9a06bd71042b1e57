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
