"""If a module and a name it exports are called the same, the name means the export.

If `package/name.py` defines `name` and the package exports it, users import `package.name`, but in
the file tree this is the module. Such modules are renamed here, so that the reference finds the
export.
"""

from collections.abc import Iterator
from typing import Any

from griffe import Alias, Extension, Module


def modules(package: Module) -> Iterator[Module]:
    yield package
    for member in package.members.values():
        if isinstance(member, Module):
            yield from modules(member)


class PublicNames(Extension):
    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        moved = {}
        for package in list(modules(pkg)):
            for name, target in package.imports.items():
                file = package.members.get(name)
                if isinstance(file, Module) and target == f"{file.path}.{name}":
                    old, file.name = file.path, f"{name}_module"
                    package.del_member(name)
                    moved[old] = file.path
                    package.set_member(file.name, file)
                    package.set_member(name, Alias(name, target))
        for module in modules(pkg):
            for name, alias in list(module.members.items()):
                if isinstance(alias, Alias):
                    owner, _, member = alias.target_path.rpartition(".")
                    module.del_member(name)  # a new alias: the old one may be resolved already
                    module.set_member(name, Alias(name, f"{moved.get(owner, owner)}.{member}"))
