"""The [classify] table: where a site keeps rules of its own."""

from daemons.section import Section


class ClassifyConfig(Section, frozen=True, kw_only=True):
    """rules: directories of *.toml files with rules, cues, overrides and names of this site, later ones winning."""

    rules: tuple[str, ...] = ()
