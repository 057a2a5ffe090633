"""A process that compiles for another one: started as a script, told by its argument what to do."""

import gc
import json
import sys
from types import ModuleType


def main() -> None:
    """Compile without what `import dream_sc` would load, which takes longer than a function."""
    told = json.loads(sys.argv[1])
    sys.path[:] = told["path"]
    package = ModuleType("dream_sc")
    package.__path__ = [told["package"]]
    sys.modules["dream_sc"] = package
    gc.disable()  # numba's many objects live until the end: looking for garbage takes a tenth of the time
    from dream_sc._core.compiled import ahead

    ahead.compile_all(told["steps"], told["folders"], told["parent"])


if __name__ == "__main__":
    main()
