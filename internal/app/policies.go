package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kilonova/internal/policy"
)

// policyOverrides reads the operator's rules for a service: DIR/NAME.yaml, .yml or .json, in the form of oslo.policy's files.
func policyOverrides(dir, name string) (map[string]string, error) {
	for _, ext := range []string{".yaml", ".yml", ".json"} {
		path := filepath.Join(dir, name+ext)
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("policy file: %w", err)
		}
		rules, err := policy.ParseFile(b)
		if err != nil {
			return nil, fmt.Errorf("policy file %s: %w", path, err)
		}
		return rules, nil
	}
	return nil, nil
}
