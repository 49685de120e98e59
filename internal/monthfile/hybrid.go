package monthfile

import "encoding/binary"

// The hybrid of run lengths and bit-packing is a sequence of runs, each begun
// by a varint h: if h is even, h/2 times one value, which follows in as many
// bytes as its width needs; if odd, h/2 groups of eight packed values.

// appendRun appends n times v.
func appendRun(dst []byte, n int, v uint64, w int) []byte {
	dst = binary.AppendUvarint(dst, uint64(n)<<1)
	for k := 0; k < w; k += 8 {
		dst = append(dst, byte(v>>k))
	}
	return dst
}

// appendGroups appends vals as one packed run, filled up with zeros to a
// multiple of eight, so it must be the last run unless it is such a multiple.
func appendGroups(dst []byte, vals []uint64, w int) []byte {
	groups := (len(vals) + 7) / 8
	dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
	end := len(dst) + groups*w
	dst = appendPacked(dst, vals, w)
	for len(dst) < end {
		dst = append(dst, 0)
	}
	return dst
}

// appendHybrid appends vals, repetitions of eight and more as run lengths.
func appendHybrid(dst []byte, vals []uint64, w int) []byte {
	packed := 0 // start of the values that wait to be packed, up to i
	for i := 0; i < len(vals); {
		j := i + 1
		for j < len(vals) && vals[j] == vals[i] {
			j++
		}
		// A packed run before this one takes the first of its values to fill
		// its last group of eight.
		head := (8 - (i-packed)&7) & 7
		if j-i-head < 8 {
			i = j
			continue
		}
		i += head
		if i > packed {
			dst = appendGroups(dst, vals[packed:i], w)
		}
		dst = appendRun(dst, j-i, vals[i], w)
		i, packed = j, j
	}
	if packed < len(vals) {
		dst = appendGroups(dst, vals[packed:], w)
	}
	return dst
}

// readRun reads the head of a run in src: n times the value v, or, if groups is
// set, up to n packed values in rest. n is at most max, which is positive. It
// reports false if src is damaged.
func readRun(src []byte, w, max int) (n int, v uint32, groups bool, rest []byte, ok bool) {
	h, k := binary.Uvarint(src)
	if k <= 0 || h < 2 || h > 1<<32 {
		return
	}
	src = src[k:]
	if h&1 != 0 {
		n = min(int(h>>1)*8, max)
		return n, 0, true, src, packedLen(n, w) <= len(src)
	}
	size := (w + 7) / 8
	if size > len(src) {
		return
	}
	for k := range size {
		v |= uint32(src[k]) << (8 * k)
	}
	return min(int(h>>1), max), v, false, src[size:], true
}

// decodeHybrid fills out from src with values of w bits, 0 to 32. It reports
// false if src is damaged or too short.
func decodeHybrid(out []uint32, src []byte, w int) bool {
	for len(out) > 0 {
		n, v, groups, rest, ok := readRun(src, w, len(out))
		if !ok {
			return false
		}
		src = rest
		if groups {
			unpack(out[:n], src, w)
			src = src[min(len(src), (n+7)/8*w):]
		} else {
			for i := range out[:n] {
				out[i] = v
			}
		}
		out = out[n:]
	}
	return true
}
