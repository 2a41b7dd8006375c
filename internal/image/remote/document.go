package remote

import (
	"encoding/json"
	"time"

	"kilonova/internal/fault"
	"kilonova/internal/image"
)

// document is an image as the REST API has it: attributes and properties at one level.
type document map[string]json.RawMessage

// attributeNames are the keys that are no properties.
func attributeNames() []string {
	return []string{"id", "name", "status", "visibility", "owner", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "container_format",
		"disk_format", "min_disk", "min_ram", "protected", "os_hidden", "tags", "created_at", "updated_at", "self", "file", "schema", "stores", "locations", "direct_url"}
}

// image reads the document. Unknown sizes are null there and -1 here.
func (d document) image() (*image.Image, error) {
	img := &image.Image{Size: -1, VirtualSize: -1, Properties: map[string]string{}}
	var created, updated string
	for name, p := range map[string]any{"id": &img.ID, "name": &img.Name, "status": &img.Status, "visibility": &img.Visibility, "owner": &img.Owner, "size": &img.Size,
		"virtual_size": &img.VirtualSize, "checksum": &img.Checksum, "os_hash_algo": &img.HashAlgo, "os_hash_value": &img.HashValue,
		"container_format": &img.ContainerFormat, "disk_format": &img.DiskFormat, "min_disk": &img.MinDisk, "min_ram": &img.MinRAM,
		"protected": &img.Protected, "os_hidden": &img.Hidden, "tags": &img.Tags, "created_at": &created, "updated_at": &updated} {
		if raw, ok := d[name]; ok { // null leaves the value as it is
			if err := json.Unmarshal(raw, p); err != nil {
				return nil, fault.Wrap(err, fault.Unavailable, "The image service gave an image whose %s can not be read.", name)
			}
		}
	}
	if img.ID == "" {
		return nil, fault.New(fault.Unavailable, "The image service gave an answer that is no image.")
	}
	img.Created, _ = time.Parse(time.RFC3339, created) // informative only
	img.Updated, _ = time.Parse(time.RFC3339, updated)
	known := map[string]bool{}
	for _, name := range attributeNames() {
		known[name] = true
	}
	for name, raw := range d {
		var text string
		if !known[name] && json.Unmarshal(raw, &text) == nil {
			img.Properties[name] = text
		}
	}
	return img, nil
}
