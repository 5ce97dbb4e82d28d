"""Reads a recording with the public MCAP reader and Foxglove's published messages, and prints what it holds.

read_recording.py RECORDING   exit code 1 if a schema in the file differs from the published one

Prints a JSON object: for each topic its messages, those of Foxglove with their fields and the SHA-256 of
their data.
"""

import hashlib
import importlib
import json
import sys

from google.protobuf import descriptor_pb2
from google.protobuf.json_format import MessageToDict
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory


def described(file):
    """A published file of Foxglove, without what a program does not need."""
    name = file.name.removeprefix("foxglove/").removesuffix(".proto")
    published = descriptor_pb2.FileDescriptorProto()
    importlib.import_module(f"foxglove_schemas_protobuf.{name}_pb2").DESCRIPTOR.CopyToProto(published)
    for message in published.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return published


def main(path):
    topics = {}
    with open(path, "rb") as stream:
        factory = DecoderFactory()
        for schema, channel, message in make_reader(stream, validate_crcs=True).iter_messages():
            messages = topics.setdefault(channel.topic, [])
            if channel.message_encoding != "protobuf":
                messages.append({"bytes": len(message.data)})
                continue
            files = descriptor_pb2.FileDescriptorSet.FromString(schema.data).file
            for file in files:
                if file.package == "foxglove" and file != described(file):
                    sys.exit(f"{schema.name}: {file.name} differs from the published one")
            # By the schema in the file, as a program that does not know Foxglove does.
            decoded = factory.decoder_for(channel.message_encoding, schema)(message.data)
            fields = MessageToDict(decoded, preserving_proto_field_name=True)
            if "data" in fields:
                fields["data"] = hashlib.sha256(decoded.data).hexdigest()
            messages.append(fields)
    print(json.dumps(topics))


if __name__ == "__main__":
    main(sys.argv[1])
