"""The two pluggy markers of the project. `hookimpl` is what plugin authors import; it costs no torch."""

import pluggy

hookspec = pluggy.HookspecMarker("xvla")
hookimpl = pluggy.HookimplMarker("xvla")
