package servers

import (
	"context"
	"fmt"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/image"
)

// blockDevice is an entry of block_device_mapping_v2, and of the older block_device_mapping.
type blockDevice struct {
	Source      string       `json:"source_type"`
	Destination string       `json:"destination_type"`
	UUID        string       `json:"uuid"`
	ImageID     string       `json:"image_id"`
	VolumeID    string       `json:"volume_id"`
	SnapshotID  string       `json:"snapshot_id"`
	Size        backend.Int  `json:"volume_size"`
	Device      string       `json:"device_name"`
	Delete      backend.Bool `json:"delete_on_termination"`
	GuestFormat string       `json:"guest_format"`
	DeviceType  string       `json:"device_type"`
	Bus         string       `json:"disk_bus"`
	BootIndex   *backend.Int `json:"boot_index"`
	Tag         string       `json:"tag"`
	VolumeType  string       `json:"volume_type"`
	NoDevice    any          `json:"no_device"`
}

// image resolves image, flavor and block devices, and judges whether they fit.
func (c *creation) image(ctx context.Context) error {
	f, err := c.flavor(ctx, c.r, lastOf(string(c.in.FlavorRef)))
	if err != nil {
		return err
	}
	c.server.Flavor = *f
	devices, root, err := c.devices()
	if err != nil {
		return err
	}
	if c.in.ImageRef == "" {
		return fault.New(fault.Invalid, "Invalid imageRef provided.")
	}
	img, err := c.bootable(ctx, c.r, c.in.ImageRef)
	if err != nil {
		return err
	}
	if err := c.fits(c.r, img, f); err != nil {
		return err
	}
	if err := mayGrow(c.in.DiskConfig, img.ID, img.Properties); err != nil {
		return err
	}
	applyImage(&c.server, img)
	c.server.ConfigDrive = c.server.ConfigDrive || img.Properties[configDrive] == mandatory
	if auto, _ := backend.ParseBool(img.Properties[autoDisk]); auto && c.in.DiskConfig == "" {
		c.server.DiskConfig = "AUTO" // as the image asks
	}
	if root == nil {
		zero := 0
		devices = append([]compute.BlockDevice{{SourceType: "image", DestinationType: "local", ImageID: img.ID, BootIndex: &zero, Device: "/dev/vda", DeleteOnTermination: true}}, devices...)
	}
	c.server.BlockDevices = devices
	return nil
}

// autoDisk is the property by which an image says whether its root disk may grow with the flavor: a boolean, the default of its servers, or "disabled".
const autoDisk = "auto_disk_config"

// mayGrow refuses the disk configuration AUTO for an image that forbids it.
func mayGrow(config, imageID string, props map[string]string) error {
	if config == "AUTO" && strings.EqualFold(strings.TrimSpace(props[autoDisk]), "disabled") {
		return fault.New(fault.Invalid, "Requested image %s has automatic disk resize disabled.", imageID)
	}
	return nil
}

// lastOf gives the id at the end of a reference, which may be the address of what it names.
func lastOf(ref string) string {
	ref, _, _ = strings.Cut(ref, "?")
	return ref[strings.LastIndex(ref, "/")+1:]
}

// applyImage keeps of an image what a server remembers.
func applyImage(s *compute.Server, img *image.Image) {
	s.ImageID, s.ImageProps, s.RootDevice = img.ID, img.Properties, "/dev/vda"
	s.KernelID, s.RamdiskID = kernelOf(img)
	if name := img.Properties["root_device_name"]; name != "" {
		s.RootDevice = name
	}
}

// flavor finds a flavor that the caller may use.
func (a api) flavor(ctx context.Context, r *httpapi.Request, ref string) (*compute.Flavor, error) {
	project := r.Caller.ProjectID
	if r.Caller.IsAdmin() {
		project = ""
	}
	f, err := a.Store.Flavor(ctx, a.DB(), ref, project)
	if err != nil {
		return nil, asInvalid(err, "Flavor %s could not be found.", ref)
	}
	if f.Disabled {
		return nil, fault.New(fault.Invalid, "Flavor %s could not be found.", ref)
	}
	return f, nil
}

// bootable finds an image that a server can be made from.
func (a api) bootable(ctx context.Context, r *httpapi.Request, ref string) (*image.Image, error) {
	img, err := a.Images.Get(ctx, r.Caller, ref)
	if err != nil {
		return nil, asInvalid(err, "Can not find requested image")
	}
	if img.Status != image.Active {
		return nil, fault.New(fault.Invalid, "Image %s is not active.", img.ID)
	}
	if img.Properties["cinder_encryption_key_id"] != "" {
		return nil, fault.New(fault.Invalid, "Image %s is unacceptable: Direct booting of an image uploaded from an encrypted volume is unsupported.", img.ID)
	}
	kernel, ramdisk := kernelOf(img)
	for _, part := range []string{kernel, ramdisk} {
		if part == "" {
			continue
		}
		if _, err := a.Images.Get(ctx, r.Caller, part); err != nil {
			return nil, asInvalid(err, "Can not find requested image")
		}
	}
	return img, compute.CheckImageProps(img.Properties)
}

// kernelOf gives the images of the kernel and the initial RAM disk that an image is booted with. The kernel "nokernel" stands for neither.
func kernelOf(img *image.Image) (kernel, ramdisk string) {
	if kernel = img.Properties["kernel_id"]; kernel == "nokernel" {
		return "", ""
	}
	return kernel, img.Properties["ramdisk_id"]
}

// configDrive is the property by which an image says whether its servers must have a config drive: "optional" or mandatory.
const (
	configDrive = "img_config_drive"
	mandatory   = "mandatory"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// fits judges an image by a flavor.
func (a api) fits(r *httpapi.Request, img *image.Image, f *compute.Flavor) error {
	if img.MinRAM > f.RAMMB {
		return tooLittleMemory(img, f)
	}
	if f.RootGB == 0 {
		if err := r.Authorize(backend.Rule("servers:create:zero_disk_flavor"), r.Own()); err != nil {
			return fault.Wrap(err, fault.Forbidden, "Only volume-backed servers are allowed for flavors with zero disk.")
		}
		return nil
	}
	need := max(img.Size, img.VirtualSize)
	if need > f.RootGB*gib {
		return fault.New(fault.Invalid, "Flavor's disk is too small for requested image. Flavor disk is %d bytes, image is %d bytes.", f.RootGB*gib, need)
	}
	if img.MinDisk > f.RootGB {
		return fault.New(fault.Invalid, "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is %d bytes, minimum size is %d bytes.", f.RootGB*gib,
			img.MinDisk*gib)
	}
	return nil
}

func tooLittleMemory(img *image.Image, f *compute.Flavor) error {
	return fault.New(fault.Invalid, "Flavor's memory is too small for requested image.").WithHint("The image needs %d MB, the flavor %s has %d.", img.MinRAM, f.Name, f.RAMMB)
}

// devices judges the block device mapping. root is the entry that is booted from, when there is one.
func (c *creation) devices() (out []compute.BlockDevice, root *compute.BlockDevice, err error) {
	if len(c.in.Disks) > 0 && len(c.in.OldDisks) > 0 {
		return nil, nil, fault.New(fault.Invalid, "Using different block_device_mapping syntaxes is not allowed in the same request.")
	}
	if len(c.in.OldDisks) > 0 {
		return nil, nil, fault.New(fault.Invalid, backend.NoVolumes)
	}
	local := 0
	boot := map[int64]bool{}
	for i := range c.in.Disks {
		d := &c.in.Disks[i]
		if d.NoDevice != nil && d.NoDevice != false && d.NoDevice != "" {
			continue
		}
		if err := d.check(c.in.ImageRef); err != nil {
			return nil, nil, err
		}
		b := compute.BlockDevice{SourceType: d.Source, DestinationType: d.Destination, SizeGB: int64(d.Size), Device: d.Device, DeleteOnTermination: bool(d.Delete), GuestFormat: d.GuestFormat,
			DiskBus: d.Bus, DeviceType: d.DeviceType, Tag: d.Tag, VolumeType: d.VolumeType}
		if d.Source == "image" {
			b.ImageID = d.UUID
		}
		if d.BootIndex != nil && *d.BootIndex >= 0 {
			n := int64(*d.BootIndex)
			if boot[n] {
				return nil, nil, fault.New(fault.Invalid, "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid.")
			}
			boot[n] = true
			at := int(n)
			b.BootIndex = &at
		}
		if d.Destination == "local" && d.Source == "blank" {
			local++
		}
		out = append(out, b)
		if b.BootIndex != nil && *b.BootIndex == 0 {
			root = &out[len(out)-1]
		}
	}
	for n := range int64(len(boot)) {
		if !boot[n] {
			return nil, nil, fault.New(fault.Invalid, "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid.")
		}
	}
	return out, root, c.localFits(out, root, local)
}

// check judges one entry by itself.
func (d *blockDevice) check(imageRef string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "Block Device Mapping is Invalid: %s", fmt.Sprintf(format, args...))
	}
	if d.Source == "" {
		switch {
		case d.VolumeID != "":
			d.Source, d.UUID = "volume", d.VolumeID
		case d.SnapshotID != "":
			d.Source, d.UUID = "snapshot", d.SnapshotID
		case d.ImageID != "":
			d.Source, d.UUID = "image", d.ImageID
		default:
			return fault.New(fault.Invalid, "Invalid source_type field.")
		}
	}
	if d.Source != "blank" && d.UUID == "" {
		return bad("Missing device UUID.")
	}
	if d.Destination == "" {
		d.Destination = map[string]string{"volume": "volume", "snapshot": "volume", "image": "local", "blank": "local"}[d.Source]
		if d.Source == "image" && (imageRef == "" || d.BootIndex == nil || *d.BootIndex != 0) {
			d.Destination = "volume"
		}
	}
	switch {
	case d.Source == "snapshot" && d.Destination == "local", d.Source == "volume" && d.Destination == "local":
		return bad("Mapping %s to local is not supported.", d.Source)
	case d.Destination == "volume":
		if d.Source == "blank" && d.Size == 0 || d.Source == "image" && d.Size == 0 {
			return bad("a volume made from %s needs volume_size.", d.Source)
		}
		return fault.New(fault.Invalid, backend.NoVolumes)
	case d.VolumeType != "":
		return bad("Specifying a volume_type with destination_type=local is not supported.")
	case d.Source == "image" && (imageRef == "" || d.BootIndex == nil || *d.BootIndex != 0):
		return bad("Mapping image to local is not supported.")
	case d.Source == "image" && imageRef != "" && d.UUID != imageRef:
		return bad("the image booted from differs from imageRef.")
	}
	return nil
}

// localFits judges the local disks by the flavor.
func (c *creation) localFits(all []compute.BlockDevice, root *compute.BlockDevice, local int) error {
	if root != nil && root.SourceType == "blank" {
		return fault.New(fault.Invalid, "Block Device Mapping is Invalid: a blank device cannot be booted from.")
	}
	var swap, ephemeral int64
	swaps := 0
	for i := range all {
		b := &all[i]
		if b.SourceType != "blank" || b.DestinationType != "local" {
			continue
		}
		if b.GuestFormat == "swap" {
			swap += b.SizeGB
			swaps++
		} else {
			ephemeral += b.SizeGB
		}
	}
	f := &c.server.Flavor
	switch {
	case swaps > 1:
		return fault.New(fault.Invalid, "Block Device Mapping is Invalid: More than one swap drive requested.")
	case swap*1024 > f.SwapMB && swaps > 0:
		return fault.New(fault.Invalid, "Swap drive requested is larger than instance type allows.")
	case ephemeral > f.EphemeralGB:
		return fault.New(fault.Invalid, "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block device mapping, flavor ephemeral size will be used.")
	case local > maxLocalDisks:
		return fault.New(fault.Invalid, "Block Device Mapping is Invalid: You specified more local devices than the limit allows.")
	}
	return nil
}

// maxLocalDisks bounds the local disks of one server beside its root disk.
const maxLocalDisks = 25
