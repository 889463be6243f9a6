from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_platform_folder_is_no_package() -> None:
    """With an __init__.py it would shadow Python's own `platform` module and break `python -m pytest`."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "tests" / "platform").exists()


def test_every_package_says_that_it_is_typed() -> None:
    for package in ("platform/roost_platform", "gateway/roost_gateway", "runtimes/roost_runtimes"):
        assert (ROOT / package / "py.typed").exists()


def test_architecture_decisions_are_short() -> None:
    for record in (ROOT / "docs" / "adr").glob("*.md"):
        assert len(record.read_text().splitlines()) <= 60, record.name
