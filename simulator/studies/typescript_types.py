"""proto/ -> types of its JSON for TypeScript: `make proto` writes `decider/client/typescript/src/proto.ts`.

Types alone, nothing that runs. (protoc-gen-es writes them too, beside messages that need its runtime of 40 KB.) Called
with the file that `protoc --descriptor_set_out --include_imports --include_source_info` has written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

SERVICE = "DeciderService"
HEAD = "// Made by `make proto` from proto/: do not edit. Types of what travels as JSON; nothing here runs.\n"

SCALARS = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BOOL: "boolean",
    FieldDescriptorProto.TYPE_DOUBLE: "number",
    FieldDescriptorProto.TYPE_INT32: "number",
    FieldDescriptorProto.TYPE_INT64: "string",  # as JSON's numbers could not hold them all
}
KNOWN = {
    ".google.protobuf.Struct": "Struct",
    ".google.protobuf.Timestamp": "string",
    ".google.protobuf.Any": '{ "@type": string; [field: string]: unknown }',
}
"""Messages that have a form of their own in JSON."""

STRUCT = """/** Anything that JSON has. */
export type Json = string | number | boolean | null | Json[] | Struct;

export interface Struct {
  [name: string]: Json;
}
"""


class Comments:
    """What stands above a thing in a .proto file, by its path there."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._by_path = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}

    def lines(self, *path: int, indent: str = "") -> str:
        """As a comment of TypeScript; nothing where there is none."""
        text = self._by_path.get(path, "").strip()
        if not text:
            return ""
        lines = [line.strip() for line in text.split("\n")]
        if len(lines) == 1:
            return f"{indent}/** {lines[0]} */\n"
        return "".join(f"{indent}{line}\n" for line in ("/**", *(f" * {line}".rstrip() for line in lines), " */"))


def typescript(files: FileDescriptorSet) -> str:
    """All messages that the service's methods need, and a table of the methods."""
    found = {f".{file.package}.{one.name}" for file in files.file for one in (*file.message_type, *file.enum_type)}
    service_file = next(file for file in files.file if any(one.name == SERVICE for one in file.service))
    needed = _reachable(files, service_file) & found
    parts = [HEAD, STRUCT]
    for file in files.file:
        parts += _of_file(file, needed)
    return "\n".join([*parts, _methods(service_file)])


def _reachable(files: FileDescriptorSet, file: FileDescriptorProto) -> set[str]:
    messages = {f".{one.package}.{message.name}": message for one in files.file for message in one.message_type}
    service = next(one for one in file.service if one.name == SERVICE)
    waiting = [name for method in service.method for name in (method.input_type, method.output_type)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in KNOWN:
            continue
        seen.add(name)
        if name in messages:
            waiting += [field.type_name for field in _all_fields(messages[name]) if field.type_name]
    return seen


def _all_fields(message: DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from message.field
    for nested in message.nested_type:  # of maps
        yield from nested.field


def _of_file(file: FileDescriptorProto, needed: set[str]) -> Iterator[str]:
    comments = Comments(file)
    for place, enum in enumerate(file.enum_type):
        if f".{file.package}.{enum.name}" in needed:
            yield comments.lines(5, place) + _enum(enum, comments, place)
    for place, message in enumerate(file.message_type):
        if f".{file.package}.{message.name}" in needed:
            yield comments.lines(4, place) + _message(message, comments, place)


def _enum(enum: EnumDescriptorProto, comments: Comments, place: int) -> str:
    values = [
        f'{comments.lines(5, place, 2, index, indent="  ")}  | "{value.name}"\n'
        for index, value in enumerate(enum.value)
    ]
    return f"export type {enum.name} =\n{''.join(values).rstrip()};\n"


def _message(message: DescriptorProto, comments: Comments, place: int) -> str:
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    fields = [
        f"{comments.lines(4, place, 2, index, indent='  ')}  {field.json_name}?: {_type(field, maps)};\n"
        for index, field in enumerate(message.field)
    ]
    return f"export interface {message.name} {{\n{''.join(fields)}}}\n"


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    short = field.type_name.rpartition(".")[2]
    if short in maps:
        return f"{{ [name: string]: {_type(maps[short].field[1], {})} }}"
    one = SCALARS.get(field.type) or KNOWN.get(field.type_name) or short
    return f"Array<{one}>" if field.label == FieldDescriptorProto.LABEL_REPEATED else one


def _methods(file: FileDescriptorProto) -> str:
    service = next(one for one in file.service if one.name == SERVICE)
    place = list(file.service).index(service)
    comments = Comments(file)
    lines = [
        f"{comments.lines(6, place, 2, index, indent='  ')}  {method.name}: "
        f"[{method.input_type.rpartition('.')[2]}, {method.output_type.rpartition('.')[2]}];\n"
        for index, method in enumerate(service.method)
    ]
    return f"/** Each call with its request and its reply. */\nexport interface Methods {{\n{''.join(lines)}}}\n"


if __name__ == "__main__":
    sys.stdout.write(typescript(FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())))
