package server

// describeMedia is predictMedia in the API description, where the generator, which knows JSON only, has nothing.
func describeMedia() map[string]any {
	parameter := func(name, in, kind, description string, required bool) map[string]any {
		return map[string]any{"name": name, "in": in, "type": kind, "description": description, "required": required}
	}
	answer := func(schema, description string) map[string]any {
		return map[string]any{"description": description, "schema": map[string]string{"$ref": "#/definitions/" + schema}}
	}
	return map[string]any{"post": map[string]any{
		"operationId": "PredictionService_PredictMedia",
		"tags":        []string{"PredictionService"},
		"summary":     "predictMedia scores one encoded clip, alone or with a text, without base64.",
		"description": "The clip is a field of a form, or the body itself. It may be larger than other bodies: 64 MiB by default. " +
			"The other fields may be in the form, in any order, or in the query, with the same names; with a clip as the body, in the query only. " +
			"The answer and the errors are those of predict; 413 is a clip above the limit, 408 one that comes too slowly.",
		"consumes": []string{"multipart/form-data", "video/*", "image/gif", "application/octet-stream"},
		"produces": []string{"application/json"},
		"parameters": []any{
			parameter("model", "path", "string", `The served name: "video" or "fusion" by default.`, true),
			parameter("video", "formData", "file", "The clip: mp4, mov, webm, mkv, avi or gif.", true),
			parameter("text", "formData", "string", "The text, in UTF-8, as its author wrote it. Empty isn't absent.", false),
			parameter("id", "formData", "string", "An id of the caller's choice, returned with the answer.", false),
			parameter("top_k", "formData", "integer", "How many classes to return, best first. 0 returns all.", false),
		},
		"responses": map[string]any{
			"200":     answer("v1PredictResponse", "The answer."),
			"default": answer("rpcStatus", "An error."),
		},
	}}
}
