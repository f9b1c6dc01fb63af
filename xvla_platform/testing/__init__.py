"""What plugin authors test with: `assert_*_conformant` hold a plugin's parts against their promises.

Each raises `NotConformantError` with the code and the words of the promise that is broken (all of them in
`PROMISES`), so it serves in pytest and without. `faults` has mistakes to plant in a clean dataset.
"""

from xvla_platform.testing.conformance import PROMISES, NotConformantError
from xvla_platform.testing.environments import assert_environment_conformant
from xvla_platform.testing.plans import assert_plan_conformant
from xvla_platform.testing.plugins import assert_plugin_conformant
from xvla_platform.testing.readers import assert_reader_answers, assert_reader_conformant
from xvla_platform.testing.storages import assert_storage_conformant

__all__ = [
    "PROMISES",
    "NotConformantError",
    "assert_environment_conformant",
    "assert_plan_conformant",
    "assert_plugin_conformant",
    "assert_reader_answers",
    "assert_reader_conformant",
    "assert_storage_conformant",
]
