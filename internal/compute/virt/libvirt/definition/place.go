package definition

import (
	"regexp"
	"strings"

	"kilonova/internal/compute/virt"
)

// Where a guest's virtual CPUs and memory lie is a matter of the host: a guest that moves while it runs is told anew.
const (
	targetPins   = "pins"   // elements vcpupin and emulatorpin
	targetNUMA   = "numa"   // element numatune
	targetCPUSet = "cpuset" // of the element vcpu
	// targetDevices are the PCI devices that the guest gets there for those that it has, in their order, separated by commas.
	targetDevices = "devices"
)

// PlaceTarget adds to a live migration's target where the guest is to lie on this host, whose CPUs for guests without pinned ones are shared (none: all).
func PlaceTarget(spec *virt.Spec, shared []int, t map[string]string) error {
	if spec.Claim != nil && len(spec.Claim.Devices) > 0 {
		t[targetDevices] = strings.Join(spec.Claim.Devices, ",")
	}
	if spec.Claim == nil || len(spec.Claim.Cells) == 0 {
		t[targetCPUSet] = JoinInts(shared)
		return nil
	}
	o, err := ParseOptions(spec)
	if err != nil {
		return err
	}
	x := &Domain{}
	x.Settle(spec.Claim, o)
	x.CPUTune.Sched = nil // it names the guest's CPUs only, and stays
	pins, err := Encode(x.CPUTune)
	if err != nil {
		return err
	}
	pins = strings.TrimSuffix(strings.TrimPrefix(pins, "<CPUTune>"), "</CPUTune>")
	numa, err := Encode(x.NUMATune)
	if err != nil {
		return err
	}
	numa = strings.TrimSuffix(strings.TrimPrefix(numa, "<NUMATune>"), "</NUMATune>")
	t[targetPins], t[targetNUMA] = pins, "<numatune>"+numa+"</numatune>"
	return nil
}

var (
	pinElements   = regexp.MustCompile(`\s*<(vcpupin|emulatorpin)\b[^>]*/>`)
	numaElement   = regexp.MustCompile(`(?s)<numatune>.*?</numatune>`)
	deviceElement = regexp.MustCompile(`(?s)<hostdev mode='subsystem' type='pci'.*?</hostdev>`)
	deviceAddress = regexp.MustCompile(`(<source>\s*<address )domain='[^']*' bus='[^']*' slot='[^']*' function='[^']*'`)
	vcpuPosition  = regexp.MustCompile(`<vcpu placement='static'(?: cpuset='[^']*')?>`)
)

// RewritePlace fits a definition's text to where the guest is to lie.
func RewritePlace(text string, target map[string]string) string {
	if pins := target[targetPins]; pins != "" {
		text = strings.Replace(pinElements.ReplaceAllString(text, ""), "</cputune>", pins+"</cputune>", 1)
	}
	if numa := target[targetNUMA]; numa != "" {
		text = numaElement.ReplaceAllLiteralString(text, numa)
	}
	if list := target[targetDevices]; list != "" {
		text = rewriteDevices(text, strings.Split(list, ","))
	}
	if set, told := target[targetCPUSet]; told {
		if set != "" {
			set = " cpuset='" + set + "'"
		}
		text = vcpuPosition.ReplaceAllLiteralString(text, "<vcpu placement='static'"+set+">")
	}
	return text
}

// rewriteDevices gives the guest other PCI devices of the host in place of those that it has, in their order.
func rewriteDevices(text string, addresses []string) string {
	return deviceElement.ReplaceAllStringFunc(text, func(element string) string {
		if len(addresses) == 0 {
			return element
		}
		a := Address(addresses[0])
		if addresses = addresses[1:]; a == nil {
			return element
		}
		return deviceAddress.ReplaceAllString(element, "${1}domain='"+a.Domain+"' bus='"+a.Bus+"' slot='"+a.Slot+"' function='"+a.Function+"'")
	})
}
