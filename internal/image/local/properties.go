package local

import (
	"context"

	"kilonova/internal/auth"
	"kilonova/internal/db"
)

// Properties reads the properties of an image beside whatever serves it. It fails with fault.NotFound.
func Properties(ctx context.Context, d *db.DB, imageID string) (map[string]string, error) {
	img, err := (&Service{db: d}).Get(ctx, auth.Internal(""), imageID)
	if err != nil {
		return nil, err
	}
	return img.Properties, nil
}
