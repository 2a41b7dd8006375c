package libvirt

import (
	"regexp"
	"strings"

	"kilonova/internal/compute/virt"
	"kilonova/internal/compute/virt/libvirt/definition"
)

// Where a guest's virtual CPUs and memory lie is a matter of the host: a guest that moves while it runs is told anew.
const (
	targetPins   = "pins"   // elements vcpupin and emulatorpin
	targetNUMA   = "numa"   // element numatune
	targetCPUSet = "cpuset" // of the element vcpu
)

// placeTarget adds to a live migration's target where the guest is to lie on this host.
func (d *Driver) placeTarget(spec *virt.Spec, t map[string]string) error {
	if spec.Claim == nil || len(spec.Claim.Cells) == 0 {
		t[targetCPUSet] = definition.JoinInts(d.c.SharedCPUs)
		return nil
	}
	o, err := definition.ParseOptions(spec)
	if err != nil {
		return err
	}
	x := &definition.Domain{}
	x.Settle(spec.Claim, o)
	x.CPUTune.Sched = nil // it names the guest's CPUs only, and stays
	pins, err := definition.Encode(x.CPUTune)
	if err != nil {
		return err
	}
	pins = strings.TrimSuffix(strings.TrimPrefix(pins, "<CPUTune>"), "</CPUTune>")
	numa, err := definition.Encode(x.NUMATune)
	if err != nil {
		return err
	}
	numa = strings.TrimSuffix(strings.TrimPrefix(numa, "<NUMATune>"), "</NUMATune>")
	t[targetPins], t[targetNUMA] = pins, "<numatune>"+numa+"</numatune>"
	return nil
}

var (
	pinElements  = regexp.MustCompile(`\s*<(vcpupin|emulatorpin)\b[^>]*/>`)
	numaElement  = regexp.MustCompile(`(?s)<numatune>.*?</numatune>`)
	vcpuPosition = regexp.MustCompile(`<vcpu placement='static'(?: cpuset='[^']*')?>`)
)

// rewritePlace fits a definition's text to where the guest is to lie.
func rewritePlace(text string, target map[string]string) string {
	if pins := target[targetPins]; pins != "" {
		text = strings.Replace(pinElements.ReplaceAllString(text, ""), "</cputune>", pins+"</cputune>", 1)
	}
	if numa := target[targetNUMA]; numa != "" {
		text = numaElement.ReplaceAllLiteralString(text, numa)
	}
	if set, told := target[targetCPUSet]; told {
		if set != "" {
			set = " cpuset='" + set + "'"
		}
		text = vcpuPosition.ReplaceAllLiteralString(text, "<vcpu placement='static'"+set+">")
	}
	return text
}
