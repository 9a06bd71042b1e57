"""A small reader of LaTeX tables, for tests: it refuses what LaTeX would stumble over."""

import re


def latex_cells(text: str) -> list[list[str]]:
    """Cells by row; all is ASCII, braces and environments balance, no special character stands alone, rows fit the columns."""
    assert text.isascii()
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    begun = re.findall(r"\\begin\{(\w+)\}", text)
    assert begun == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    body = text[text.index(r"\begin{tabular}") : text.index(r"\end{tabular}")]
    columns = re.match(r"\\begin\{tabular\}\{([lr]+)\}\n", body)
    assert columns is not None
    rows = []
    for line in body.splitlines()[1:]:
        if line == r"\hline":
            continue
        assert line.endswith(r" \\")
        line = line.removesuffix(r" \\")
        assert not line.startswith(("[", "*")), "an option of the line break before it"
        bare = re.sub(r"\$\\\w+\$|\$-\$|\\rule\{1ex\}\{1ex\}|\{\[\}|\\[a-z]+\{\}|\\[,_%&#${}]", "", line)
        assert not set(bare.replace(" & ", "")) & set("#$%&~_^\\{}|<>"), line
        rows.append(line.split(" & "))
        assert len(rows[-1]) == len(columns[1])
    return rows
