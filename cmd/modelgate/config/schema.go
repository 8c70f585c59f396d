package config

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/invopop/jsonschema"
)

// Schema is the JSON Schema of the file, for editors.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{DoNotReference: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true, Anonymous: true}
	s := r.Reflect(&Config{})
	s.Title = "modelgate"
	s.Description = "Configuration of modelgate, for serve --config FILE. Durations are written as 30m, sizes as 64KiB."
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
