package app

import (
	"context"
	"encoding/json"
	"errors"

	"kilonova/internal/compute"
	"kilonova/internal/compute/agent"
	"kilonova/internal/compute/virt"
)

func (a *App) metadataInput(context.Context, *compute.Server, map[string][]byte) (json.RawMessage, error) {
	return nil, nil
}
func (a *App) configDrive(context.Context, []byte, string, string) error {
	return errors.New("pending")
}
func (a *App) openLibvirt(context.Context, string) (func(string) (virt.Driver, agent.Plane, error), error) {
	return nil, errors.New("pending")
}
func (a *App) startScheduler(context.Context) error { return nil }
