package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// unreadableField is the number of a field that no message of ours has: a message that can't be decoded carries why in it.
const unreadableField = protowire.Number(1<<29 - 1)

// A lenientCodec decodes protobuf. A message that can't be decoded (a string that isn't UTF-8, say) becomes an empty one that says
// so, for us to answer with INVALID_ARGUMENT: grpc-go itself would say INTERNAL, as if the fault were ours, and end a stream.
type lenientCodec struct{ encoding.CodecV2 }

// Unmarshal decodes data into v.
func (c lenientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	proto.Reset(m)
	why := protowire.AppendTag(nil, unreadableField, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendString(why, err.Error()))
	return nil
}

// unreadable is the status of a message that couldn't be decoded, nil for every other.
func unreadable(m proto.Message) error {
	rest := m.ProtoReflect().GetUnknown()
	for len(rest) > 0 {
		number, kind, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil // not ours: decoding checks unknown fields
		}
		if _, _, tag := protowire.ConsumeTag(rest); number == unreadableField && kind == protowire.BytesType && tag > 0 {
			why, _ := protowire.ConsumeBytes(rest[tag:])
			return invalid("UNREADABLE_MESSAGE", "the message can't be read: "+string(why)+"; strings must be UTF-8")
		}
		rest = rest[n:]
	}
	return nil
}

func refuseUnreadable(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if m, ok := req.(proto.Message); ok {
		if err := unreadable(m); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}
