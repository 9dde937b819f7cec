// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {Sha256Tree} from "./Sha256Tree.sol";

/// @notice What a model's manifest root commits to beside its block roots.
/// @param name the model's name: plain text that JSON writes as it is (no quotes, backslashes, or non-ASCII)
struct Manifest {
    string name;
    bytes32 configRoot;
    bytes32 frontRoot;
    bytes32 headRoot;
}

/// @title Roots of model manifests
/// @notice Mirrors corolla_core/model/manifest.py; docs/spec/vectors.json holds both to it.
library ManifestLib {
    /// @notice The root over (name leaf, config root, front root, root over block roots, head root).
    /// @dev The name's leaf also says how many blocks there are: inner nodes cannot pass for blocks of a shorter model.
    function root(Manifest calldata manifest, bytes32[] memory blockRoots) internal pure returns (bytes32) {
        bytes32[] memory parts = new bytes32[](5);
        parts[0] = nameLeaf(manifest.name, blockRoots.length);
        parts[1] = manifest.configRoot;
        parts[2] = manifest.frontRoot;
        parts[3] = Sha256Tree.root(blockRoots, 0, blockRoots.length);
        parts[4] = manifest.headRoot;
        return Sha256Tree.root(parts, 0, 5);
    }

    /// @dev `SHA-256(0x00 ‖ "model" ‖ uint32 length ‖ {"blocks":…,"name":"…"})`.
    function nameLeaf(string calldata name, uint256 blocks) internal pure returns (bytes32) {
        bytes memory text = abi.encodePacked('{"blocks":', Strings.toString(blocks), ',"name":"', name, '"}');
        return sha256(abi.encodePacked(bytes1(0x00), "model", uint32(text.length), text));
    }
}
