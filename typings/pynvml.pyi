# nvidia-ml-py carries no types; checks/gpu/questions.py is the one file that imports it, and gives its answers types.
from typing import Any

class NVMLError(Exception):
    value: int

def __getattr__(name: str) -> Any: ...
