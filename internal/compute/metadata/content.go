// Package metadata is what a guest can learn about itself: one content, made from a plain input, that both the metadata service
// (an http.Handler) and the config drive (package configdrive) render.
//
// What it promises: the two never differ in anything but the administrator's password, which only the drive has, and the password
// file, which only the service has; the same Input gives the same bytes; nothing is read from anywhere while content is built.
// The layouts are those of the field: EC2 2009-04-04 and its ancestors, and OpenStack 2012-08-10 to 2025-04-04.
package metadata

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/fault"
	"kilonova/internal/network"
)

// Input is everything that content is made from. It is written as JSON into commands to agents.
type Input struct {
	ID               string            `json:"id"`
	Number           int64             `json:"number"` // of the EC2 instance id
	Name             string            `json:"name"`
	Hostname         string            `json:"hostname"`
	Domain           string            `json:"domain,omitempty"` // appended to the host name; "" none
	ProjectID        string            `json:"project_id"`
	ReservationID    string            `json:"reservation_id"`
	LaunchIndex      int               `json:"launch_index"`
	AvailabilityZone string            `json:"availability_zone"`
	Flavor           string            `json:"flavor"` // name
	ImageID          string            `json:"image_id,omitempty"`
	KernelID         string            `json:"kernel_id,omitempty"`
	RamdiskID        string            `json:"ramdisk_id,omitempty"`
	KeyName          string            `json:"key_name,omitempty"`
	KeyType          string            `json:"key_type,omitempty"` // ssh, x509
	PublicKey        string            `json:"public_key,omitempty"`
	UserData         string            `json:"user_data,omitempty"` // base64
	Metadata         map[string]string `json:"metadata,omitempty"`
	Files            map[string][]byte `json:"files,omitempty"` // by path in the guest
	SecurityGroups   []string          `json:"security_groups,omitempty"`
	VIFs             []network.VIF     `json:"vifs,omitempty"`
	Disks            []Disk            `json:"disks,omitempty"`
	RootDevice       string            `json:"root_device,omitempty"` // /dev/vda
	Devices          []Device          `json:"devices,omitempty"`
	DedicatedCPUs    []int             `json:"dedicated_cpus,omitempty"`
	Seed             []byte            `json:"seed,omitempty"` // random bytes for the guest's generator

	AdminPass string `json:"admin_pass,omitempty"` // config drive only

	Vendor  json.RawMessage            `json:"vendor,omitempty"`  // static vendor document
	Dynamic map[string]json.RawMessage `json:"dynamic,omitempty"` // answers of vendor data targets by name

	Created time.Time `json:"created"` // of the server; the times of the drive's files
}

// Disk is one entry of the EC2 block device mapping beside the root disk.
type Disk struct {
	Kind   string `json:"kind"`   // ephemeral, swap, ebs
	Device string `json:"device"` // /dev/vdb
}

// Device is one device that the guest can be told about.
type Device struct {
	Type      string   `json:"type"`          // nic, disk, share
	Bus       string   `json:"bus,omitempty"` // pci, usb, scsi, ide, xen, none
	Address   string   `json:"address,omitempty"`
	MAC       string   `json:"mac,omitempty"`
	Serial    string   `json:"serial,omitempty"`
	Path      string   `json:"path,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	VLAN      int      `json:"vlan,omitempty"`
	VFTrusted bool     `json:"vf_trusted,omitempty"`
	ShareID   string   `json:"share_id,omitempty"`
	ShareTag  string   `json:"share_tag,omitempty"`
}

// Extra is what a server record does not hold.
type Extra struct {
	Domain  string // dhcp_domain
	Files   map[string][]byte
	Vendor  json.RawMessage
	Dynamic map[string]json.RawMessage
	Seed    []byte // nil: made
}

// seedSize is the length of the random seed in bytes.
const seedSize = 512

// InputOf takes the input from a server record. The groups are those of its interfaces, or what was asked for while it has none.
func InputOf(s *compute.Server, x Extra) Input {
	in := Input{ID: s.ID, Number: s.Number, Name: s.Name, Hostname: s.Hostname, Domain: x.Domain, ProjectID: s.ProjectID, ReservationID: s.ReservationID,
		LaunchIndex: s.LaunchIndex, AvailabilityZone: s.AvailabilityZone, Flavor: s.Flavor.Name, ImageID: s.ImageID, KernelID: s.KernelID, RamdiskID: s.RamdiskID,
		KeyName: s.KeyName, KeyType: s.KeyType, PublicKey: s.PublicKey, UserData: s.UserData, Metadata: s.Metadata, Files: x.Files, VIFs: s.VIFs,
		RootDevice: s.RootDevice, Seed: x.Seed, Vendor: x.Vendor, Dynamic: x.Dynamic, Created: s.Created}
	for _, v := range s.VIFs {
		for _, g := range v.SecurityGroups {
			if !slices.Contains(in.SecurityGroups, g) {
				in.SecurityGroups = append(in.SecurityGroups, g)
			}
		}
		if v.Tag != "" || v.VLAN > 0 || v.Trusted {
			d := Device{Type: "nic", MAC: v.MAC, VLAN: v.VLAN, VFTrusted: v.Trusted}
			if v.Tag != "" {
				d.Tags = []string{v.Tag}
			}
			in.Devices = append(in.Devices, d)
		}
	}
	if in.SecurityGroups == nil {
		in.SecurityGroups = slices.Clone(s.SecurityGroups)
	}
	for _, b := range s.BlockDevices {
		in.addDisk(b)
	}
	if in.Seed == nil {
		in.Seed = make([]byte, seedSize)
		_, _ = rand.Read(in.Seed) // crypto/rand.Read never fails
	}
	return in
}

func (in *Input) addDisk(b compute.BlockDevice) {
	root := b.BootIndex != nil && *b.BootIndex == 0
	switch {
	case root || b.Device == "":
	case b.GuestFormat == "swap":
		in.Disks = append(in.Disks, Disk{"swap", b.Device})
	case b.DestinationType == "volume":
		in.Disks = append(in.Disks, Disk{"ebs", b.Device})
	case b.SourceType == "blank":
		in.Disks = append(in.Disks, Disk{"ephemeral", b.Device})
	}
	if b.Tag != "" {
		in.Devices = append(in.Devices, Device{Type: "disk", Bus: "", Serial: b.VolumeID, Path: b.Device, Tags: []string{b.Tag}})
	}
}

// Parse reads an Input from JSON.
func Parse(raw []byte) (Input, error) {
	var in Input
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("metadata input: %w", err)
	}
	return in, nil
}

// Content is the built content of one server. It is immutable.
type Content struct {
	in       Input
	userData []byte
	files    []file // injected files, sorted by path
	vendor   map[string]any
	dynamic  map[string]any
}

type file struct {
	path string
	data []byte
}

// Build makes the content. It fails with fault.Invalid for user data that is not base64 and vendor data that is not JSON.
func Build(in Input) (*Content, error) {
	c := &Content{in: in, vendor: map[string]any{}, dynamic: map[string]any{}}
	var err error
	if in.UserData != "" {
		if c.userData, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(in.UserData), "")); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The user data of server %s is not base64.", in.ID)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(in.Files)) {
		c.files = append(c.files, file{path, in.Files[path]})
	}
	if len(in.Vendor) > 0 {
		if err := json.Unmarshal(in.Vendor, &c.vendor); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The static vendor data is not a JSON object.")
		}
	}
	for name, raw := range in.Dynamic {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The vendor data of target %s is not JSON.", name)
		}
		c.dynamic[name] = v
	}
	return c, nil
}

// ServerID and ProjectID tell whose content it is.
func (c *Content) ServerID() string { return c.in.ID }

// ProjectID is the server's project.
func (c *Content) ProjectID() string { return c.in.ProjectID }

// hostname is the full one.
func (c *Content) hostname() string {
	if c.in.Domain == "" {
		return c.in.Hostname
	}
	return c.in.Hostname + "." + c.in.Domain
}

// ec2ID is an EC2 identifier. Images have no numbers here: theirs comes from their id, always the same.
func ec2ID(prefix, id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%s-%08x", prefix, binary.BigEndian.Uint32(sum[:]))
}

// encode writes JSON with sorted keys and without escaping what need not be escaped.
func encode(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte("{}") // only maps, strings and numbers come here: they always encode
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
