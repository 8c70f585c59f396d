package main

import (
	"fmt"

	"modelgate/cmd/modelgate/config"
	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// withManifest is the setting that has only versions served of which it is known what their publisher published.
const withManifest = "manifest"

// checkProvenance refuses, for good, a version that doesn't say what was published, where the configuration asks for that. A manifest
// alone proves only that the files are whole: from a registry their digest is needed too, which the cache compares if it is declared.
func checkProvenance(c *config.Loaded, model, dir string, declared bool) error {
	if c.ModelFor(model).Provenance != withManifest {
		return nil
	}
	has, err := disk.HasManifest(dir)
	if err != nil {
		return err
	}
	var missing string
	switch {
	case !has:
		missing = "its bundle has no manifest.json"
	case !declared:
		missing = "the registry doesn't say its digest (the tag modelgate.digest)"
	default:
		return nil
	}
	return modelstore.Permanent(fmt.Errorf("models.%s.provenance is manifest, and %s: publish it with `python -m modelgate.publish`, which writes both, "+
		"or set provenance to any", model, missing))
}
